"""Trace a model without its weights, and give them to the graph afterwards.

A tracer copies every weight, some more than once. So each matrix becomes a node that says its name,
and in the trace zeros of its shape that take no memory. `fill_in` puts constants in the nodes'
places, which stay in the file of the weights, and computes what depends on nothing else: mostly
transposes.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
import onnxruntime as ort
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper
from torch import Tensor, nn

from export.experts import DOMAIN, STACKED, Stack
from export.graph import OnnxGraph
from export.onnx_file import point_to, read_tensor
from export.origins import Origin
from export.pieces import in_pieces
from export.progress import shown
from export.weight_file import WeightFile

STORED: Final = "StoredWeight"
WEIGHTS: Final = "weights.json"
"""Beside a traced graph: where its weights are."""


class Place(msgspec.Struct, frozen=True):
    """Where a weight is."""

    file: str
    offset: int
    dtype: str
    shape: tuple[int, ...]


class StoredWeight(torch.autograd.Function):
    """A weight: a tensor for torch, a node with its name for the graph."""

    apply: ClassVar[Callable[..., Tensor]]

    @staticmethod
    def forward(_ctx: Any, anchor: Tensor, _name: str, kind: "_Kind") -> Tensor:
        """A tensor of the weight's shape, made of another, as the tracer needs it; no values."""
        return anchor.new_empty(kind.shape, dtype=kind.dtype)

    @staticmethod
    def symbolic(g: Any, anchor: Any, name: str, kind: "_Kind") -> Any:
        """The node, of the weight's type and shape."""
        out = g.op(f"{DOMAIN}::{STORED}", name_s=name)
        out.setType(anchor.type().with_dtype(kind.dtype).with_sizes(list(kind.shape)))
        return out


@dataclass(frozen=True)
class _Kind:
    shape: tuple[int, ...]
    dtype: torch.dtype


@contextmanager
def without_matrices(
    model: nn.Module, stacked: Collection[str] = ()
) -> Iterator[Callable[[Tensor], None]]:
    """Take the matrices out of a model.

    Args:
        model: is changed until the end of the block.
        stacked: names of weights that nodes of their own are made of, and none is put in for.

    Yields:
        Puts stand-ins in their places, once the trace has begun; wants one of its tensors.
    """
    names = {id(weight): name for name, weight in model.named_parameters()}
    taken = [
        (module, attribute, weight)
        for module in model.modules()
        for attribute, weight in [*module.named_parameters(recurse=False)]
        if weight.dim() > 1
    ]
    # never written to, so the system gives it no memory
    most = max(weight.numel() * weight.element_size() for _, _, weight in taken)
    memory = torch.from_numpy(np.zeros(most, np.uint8))
    # made now: within the trace, asking for a shape is part of it
    nodes = [(names[id(w)], _Kind(tuple(w.shape), w.dtype)) for _, _, w in taken]
    zeros = [
        memory[: w.numel() * w.element_size()].view(w.dtype).view(w.shape) for _, _, w in taken
    ]
    for module, attribute, _ in taken:
        del module._parameters[attribute]  # noqa: SLF001 - assigning another tensor is refused

    def put_in(anchor: Tensor) -> None:
        for (module, attribute, _), (name, kind), values in zip(taken, nodes, zeros, strict=True):
            if name in stacked:
                continue
            stand_in = StoredWeight.apply(anchor, name, kind)
            stand_in.data = values
            module.__dict__[attribute] = stand_in

    try:
        yield put_in
    finally:
        for module, attribute, weight in taken:
            module.__dict__.pop(attribute, None)
            module._parameters[attribute] = weight  # noqa: SLF001


def write_places(
    model: nn.Module, file: WeightFile, folder: Path, stacked: Collection[str] = ()
) -> None:
    """Write where each matrix of a model is, and each weight that is stacked with others."""
    places = {
        name: Place(
            str(file.path),
            file.place(weight.detach()),
            str(weight.dtype).removeprefix("torch."),
            tuple(weight.shape),
        )
        for name, weight in model.named_parameters()
        if weight.dim() > 1 or name in stacked
    }
    (folder / WEIGHTS).write_bytes(msgspec.json.encode(places))


def read_places(folder: Path) -> Mapping[str, Place]:
    """Read what `write_places` wrote."""
    return msgspec.json.decode((folder / WEIGHTS).read_bytes(), type=dict[str, Place])


def fill_in(graph: OnnxGraph, places: Mapping[str, Place]) -> None:
    """Replace the nodes of weights by constants, and compute what depends on them alone."""
    stored: set[str] = set()
    for node in shown(graph.sorted_nodes(), "take the weights"):
        if node.op_type == STORED:
            graph.initializers[node.output[0]] = _constant(node, places)
            name = node.attribute[0].s.decode()
            if len(places[name].shape) == 2:
                graph.origins[node.output[0]] = Origin.of(name, places[name].shape[1])
        elif node.op_type == STACKED:
            _stack(graph, node, places)
        elif stored.intersection(node.input) and all(
            name in graph.initializers for name in node.input if name
        ):
            _compute(graph, node)
        else:
            continue
        stored.update(node.output)
        graph.remove([node])
    graph.prune()


def _stack(graph: OnnxGraph, node: NodeProto, places: Mapping[str, Place]) -> None:
    """Put weights of experts into one constant, expert by expert."""
    stack = msgspec.json.decode(node.attribute[0].s, type=Stack)
    dtype = np.dtype(places[stack.experts[0][0].name].dtype)
    whole = graph.room(stack.shape, dtype)

    def store(start: int, end: int) -> None:
        for expert in range(start, end):
            pieces = stack.experts[expert]
            for i, piece in enumerate(pieces):
                weight = read_tensor(_tensor(piece.name, places[piece.name]))
                whole[expert, i :: len(pieces)] = piece.of(weight)

    in_pieces(store, len(whole), whole.nbytes // len(whole))
    graph.add_constant(whole, node.output[0], exact=True)


def _constant(node: NodeProto, places: Mapping[str, Place]) -> TensorProto:
    return _tensor(node.output[0], places[node.attribute[0].s.decode()])


def _tensor(name: str, place: Place) -> TensorProto:
    dtype = np.dtype(place.dtype)
    tensor = TensorProto(name=name, dims=place.shape)
    tensor.data_type = helper.np_dtype_to_tensor_dtype(dtype)
    size = int(np.prod(place.shape)) * dtype.itemsize
    point_to(tensor, place.file, place.offset, size)
    return tensor


def _compute(graph: OnnxGraph, node: NodeProto) -> None:
    """Make a node's outputs constants."""
    value = graph.constant(node.input[0])
    assert value is not None
    if node.op_type == "Transpose" and value.ndim == 2:
        turned = graph.room(value.shape[::-1], value.dtype)

        def turn(start: int, end: int) -> None:
            turned[:, start:end] = value[start:end].T

        in_pieces(turn, len(value), value.shape[1] * value.itemsize)
        graph.add_constant(turned, node.output[0], exact=True)
        if node.input[0] in graph.origins:
            origin = graph.origins[node.input[0]].turned(turned.shape[1])
            graph.origins[node.output[0]] = origin
        return
    model = ModelProto(ir_version=graph.model.ir_version)
    model.graph.name = "constants"
    model.opset_import.extend(o for o in graph.model.opset_import if o.domain != DOMAIN)
    model.graph.node.append(node)
    feeds = {}
    for name in dict.fromkeys(name for name in node.input if name):
        feeds[name] = np.array(graph.constant(name))
        kind = graph.initializers[name].data_type
        shape = list(feeds[name].shape)
        model.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in node.output)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for name, result in zip(node.output, session.run(list(node.output), feeds), strict=True):
        graph.add_constant(np.asarray(result), name, exact=True)
