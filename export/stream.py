"""Run a graph part by part, so that the weights of one part alone are in memory at a time.

The graph is cut where few values pass. Each part runs over all inputs before the next one, and
what passes from part to part is kept: the residual stream, mostly. Knows nothing about models.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from app.runtime.heap import trim_freed
from app.runtime.ort_decoder import session_options
from export.graph import MICROSOFT, OnnxGraph
from export.onnx_file import num_bytes, save_beside
from export.progress import shown
from export.spill import Array

PART_BYTES: Final = 1 << 28
"""Of the weights of a part, unless one of them alone is larger."""
PART_FILE: Final = "part.onnx"

Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Part:
    """Nodes that run together."""

    nodes: list[NodeProto]
    wanted: list[str]
    """What was asked for of their values."""
    passing: list[str]
    """Values of this or earlier parts that later ones read."""


def stream(
    graph: OnnxGraph,
    folder: Path,
    feeds: Sequence[Feeds],
    wanted: Collection[str],
    extra_bytes: Mapping[str, int] | None = None,
    *,
    what: str = "run",
) -> Iterator[tuple[list[str], Iterator[list[Array]]]]:
    """Give some of a graph's values, part by part.

    Args:
        graph: whose large constants lie below `folder`.
        folder: where a part's graph is written, which is deleted again.
        feeds: one or more times the graph's inputs.
        wanted: values of the graph.
        extra_bytes: what the caller keeps for a value while its part runs.
        what: is done with the parts, for the progress bar.

    Yields:
        Names of wanted values, and for each of `feeds` those values. All of them must be taken.
    """
    known = [dict(feed) for feed in feeds]
    for part in shown([*cut(graph, wanted, extra_bytes or {})], what):
        yield part.wanted, _run(graph, folder, part, known)
        trim_freed()  # a session refers to nothing that refers to it: it is freed by now


def cut(
    graph: OnnxGraph, wanted: Collection[str], extra_bytes: Mapping[str, int]
) -> Iterator[Part]:
    """Cut what is needed of a graph into parts, in the order in which they run."""
    nodes = needed(graph, wanted)
    last_reader = {name: i for i, node in enumerate(nodes) for name in node.input if name}
    alive: list[set[str]] = []
    """By node: what it and earlier nodes made that later ones read."""
    held: set[str] = set()
    for i, node in enumerate(nodes):
        held = held | {name for name in node.output if name}
        held = {name for name in held if last_reader.get(name, -1) > i}
        alive.append(held)
    start = 0
    while start < len(nodes):
        end = _end(graph, nodes, alive, start, extra_bytes)
        some = nodes[start:end]
        made = [name for node in some for name in node.output if name in wanted]
        yield Part(some, made, sorted(alive[end - 1]))
        start = end


def _end(
    graph: OnnxGraph,
    nodes: list[NodeProto],
    alive: list[set[str]],
    start: int,
    extra_bytes: Mapping[str, int],
) -> int:
    """Where a part ends that begins with node `start`.

    Where the fewest values pass; of such places behind a norm, and of those the last.
    """
    size, seen = 0, set[str]()
    best = start
    for i in range(start, len(nodes)):
        node = nodes[i]
        weights = {name for name in node.input if name in graph.initializers} - seen
        seen |= weights
        size += sum(num_bytes(graph.initializers[name]) for name in weights)
        size += sum(extra_bytes.get(name, 0) for name in node.output)
        if size > PART_BYTES and i > start:
            return best + 1

        def rank(at: int) -> tuple[int, bool]:
            return len(alive[at]), "Normalization" not in nodes[at].op_type

        if rank(i) <= rank(best):
            best = i
    return len(nodes)


def needed(graph: OnnxGraph, wanted: Collection[str]) -> list[NodeProto]:
    """The nodes that some values depend on, in the order in which they run."""
    names = set(wanted)
    found = []
    for node in reversed(graph.sorted_nodes()):
        if names.intersection(node.output):
            names.update(node.input)
            found.append(node)
    return found[::-1]


def _run(
    graph: OnnxGraph, folder: Path, part: Part, known: list[dict[str, Array]]
) -> Iterator[list[Array]]:
    """Run a part for each of the inputs; what later parts need replaces what is known."""
    read = {name for node in part.nodes for name in node.input if name}
    made = {name for node in part.nodes for name in node.output}
    names = [*dict.fromkeys([*part.wanted, *(name for name in part.passing if name in made)])]
    path = folder / PART_FILE
    save_beside(_model(graph, part, known[0], read, names), path)
    session = ort.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])
    path.unlink()
    taken = [value.name for value in session.get_inputs()]
    inputs = {value.name for value in graph.model.graph.input}
    for values in known:
        found = dict(
            zip(names, session.run(names, {name: values[name] for name in taken}), strict=True)
        )
        values.update(found)
        for name in values.keys() - inputs - set(part.passing):
            del values[name]
        yield [found[name] for name in part.wanted]


def _model(
    graph: OnnxGraph, part: Part, values: Feeds, read: set[str], names: list[str]
) -> ModelProto:
    """A part as a model of its own."""
    model = ModelProto(ir_version=graph.model.ir_version)
    model.graph.name = "part"
    opset = next(o.version for o in graph.model.opset_import if not o.domain)
    model.opset_import.extend([helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)])
    model.graph.node.extend(part.nodes)
    model.graph.initializer.extend(
        tensor for name, tensor in graph.initializers.items() if name in read
    )
    given = {value.name: value for value in graph.model.graph.input}
    for name in sorted(read & values.keys()):
        model.graph.input.append(given.get(name) or _described(name, values[name]))
    # their types and shapes are for ONNX Runtime to find out
    model.graph.output.extend([ValueInfoProto(name=name) for name in names])
    return model


def _described(name: str, value: Array) -> ValueInfoProto:
    """A value whose first dimensions change from input to input."""
    kind: TensorProto.DataType = helper.np_dtype_to_tensor_dtype(value.dtype)
    shape: list[int | None] = [*([None] * (value.ndim - 1)), *value.shape[-1:]]
    return helper.make_tensor_value_info(name, kind, shape)
