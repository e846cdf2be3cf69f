"""An ONNX graph with an index: which node makes a value, which nodes read it, what shape it has.

Large constants stay in files and are mapped while they are looked at; new ones go to a `Spill`, if
the graph was given one. Knows how to rewrite a graph, not what is worth rewriting (`cleanup.py`,
`quantise.py`).
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from export.onnx_file import read_tensor, stored_tensor
from export.origins import Origin
from export.spill import Array, Spill, place_of
from export.turns import Turning

Dim = int | str
MICROSOFT = "com.microsoft"
SPILLED_BYTES: Final = 1 << 16
"""Smaller constants are kept in memory."""
SHAPE_OF_FIRST_INPUT = {
    *("SimplifiedLayerNormalization", "GroupQueryAttention", "MultiHeadAttention", "MoE"),
}
"""Operators unknown to ONNX's shape inference; output 0 is shaped like input 0."""


def read_by(node: NodeProto) -> list[str]:
    """The values that a node reads, from outside its branches if it has some."""
    names = list(node.input)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            inner = attribute.g.node
            made = {name for each in inner for name in each.output}
            names += [name for each in inner for name in read_by(each) if name not in made]
    return names


class OnnxGraph:
    """A model being rewritten; `finish` returns it.

    Nodes are kept in a plain list: protobuf copies a node each time it is put into a model, and the
    index must refer to the real ones.
    """

    def __init__(self, model: ModelProto, spill: Spill | None = None) -> None:
        self.model = model
        self.spill = spill
        self.node_list: list[NodeProto] = []
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {value.name for value in model.graph.output}
        self.producer: dict[str, NodeProto] = {}
        self.users: defaultdict[str, list[NodeProto]] = defaultdict(list)
        self.shapes: dict[str, tuple[Dim, ...]] = {}
        self.types: dict[str, int] = {}
        self.origins: dict[str, Origin] = {}
        """By name of an initialiser; not of all."""
        self.turnings: dict[str, list[Turning]] = {}
        """By the result of a product: what has been done to its matrix, in order."""
        self._hoist_constants()
        self.index()
        self._fresh = self._last_number()

    def _hoist_constants(self) -> None:
        """Turn Constant nodes into initialisers, so that there is one kind of constant."""
        for node in self.model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                tensor = TensorProto()
                tensor.CopyFrom(node.attribute[0].t)
                tensor.name = node.output[0]
                self.initializers[tensor.name] = tensor
            else:
                self.node_list.append(node)

    def index(self) -> None:
        """Rebuild the index; call it after adding or removing nodes."""
        self.producer.clear()
        self.users.clear()
        for node in self.node_list:
            for name in node.output:
                if name:
                    self.producer[name] = node
            for name in read_by(node):
                if name:
                    self.users[name].append(node)

    def nodes(self, *op_types: str) -> list[NodeProto]:
        """Nodes of the given types, in graph order."""
        return [node for node in self.node_list if node.op_type in op_types]

    def made_by(self, name: str, op_type: str) -> NodeProto | None:
        """The node that makes a value, if it is of this type."""
        node = self.producer.get(name)
        return node if node is not None and node.op_type == op_type else None

    def used_once(self, name: str) -> bool:
        """Whether exactly one node input reads the value, and the graph does not return it."""
        return len(self.users[name]) == 1 and name not in self.outputs

    def constant(self, name: str) -> Array | None:
        """The value of an initialiser; None if the name is not one."""
        tensor = self.initializers.get(name)
        return None if tensor is None else read_tensor(tensor)

    def rank(self, name: str) -> int | None:
        """Dimensions of an initialiser; None if the name is not one."""
        tensor = self.initializers.get(name)
        return None if tensor is None else len(tensor.dims)

    def add_constant(self, value: Array, hint: str, *, exact: bool = False) -> str:
        """Add an initialiser named `hint` if `exact`, or else after it; returns its name.

        A value that is mapped from a file, as from `room`, stays there.
        """
        name = hint if exact else self.fresh_name(hint)
        if self.spill is not None and value.nbytes >= SPILLED_BYTES and place_of(value) is None:
            there = self.room(value.shape, value.dtype)
            there[...] = value
            value = there
        self.initializers[name] = stored_tensor(value, name)
        return name

    def add_reshaped(self, name: str, shape: tuple[int, ...], hint: str) -> str:
        """Add an initialiser of the same bytes in another shape, named after `hint`."""
        tensor = TensorProto()
        tensor.CopyFrom(self.initializers[name])
        tensor.name = self.fresh_name(hint)
        del tensor.dims[:]
        tensor.dims.extend(shape)
        self.initializers[tensor.name] = tensor
        return tensor.name

    def room(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Zeros to write a new constant into."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self.spill is None or size < SPILLED_BYTES:
            return np.zeros(shape, dtype)
        return self.spill.room(shape, dtype)

    def copy(self) -> Self:
        """A graph of its own with the same large constants; this one is finished by it."""
        model = ModelProto()
        model.CopyFrom(self.finish())
        copied = type(self)(model, self.spill)
        copied.origins |= self.origins
        copied.turnings |= {result: [*turnings] for result, turnings in self.turnings.items()}
        return copied

    def _last_number(self) -> int:
        """The largest number that `fresh_name` gave in an earlier life of this graph."""
        names = [*self.producer, *self.initializers, *self.users]
        numbers = (name.rpartition(".")[2] for name in names)
        return max((int(n) for n in numbers if n.isdecimal() and len(n) < 10), default=0)

    def fresh_name(self, hint: str) -> str:
        """A name that no value has yet."""
        self._fresh += 1
        return f"{hint}.{self._fresh}"

    def add(
        self,
        op_type: str,
        inputs: list[str],
        outputs: list[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> None:
        """Append a node; its domain is ONNX's own, whose name is empty, unless one is given."""
        node = helper.make_node(op_type, inputs, outputs, domain=domain, **attributes)
        node.name = outputs[0]
        self.node_list.append(node)

    def remove(self, nodes: Iterable[NodeProto]) -> None:
        """Remove nodes."""
        gone = {id(node) for node in nodes}
        self.node_list = [node for node in self.node_list if id(node) not in gone]

    def replace(self, old: str, new: str) -> None:
        """Make every node that reads `old` read `new`."""
        for node in self.users[old]:
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new
        self.users[new].extend(self.users.pop(old, []))

    def infer_shapes(self) -> None:
        """Infer symbolic shapes and types of all values, into `shapes` and `types`.

        ONNX infers them on a copy without weights, in which the operators of
        `SHAPE_OF_FIRST_INPUT` are replaced by Identity.
        """
        sketch = ModelProto(ir_version=self.model.ir_version, opset_import=self.model.opset_import)
        sketch.graph.name = "sketch"
        sketch.graph.input.extend(self.model.graph.input)
        sketch.graph.output.extend(self.model.graph.output)
        sketch.graph.node.extend(self.node_list)
        for tensor in self.initializers.values():
            if np.prod(tensor.dims) <= 64:
                sketch.graph.initializer.append(tensor)
            else:
                info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                sketch.graph.input.append(info)
        for node in sketch.graph.node:
            if node.op_type in SHAPE_OF_FIRST_INPUT:
                first_in, first_out = node.input[0], node.output[0]
                node.CopyFrom(helper.make_node("Identity", [first_in], [first_out]))
        inferred = onnx.shape_inference.infer_shapes(sketch, data_prop=True)
        self.shapes.clear()
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
            tensor_type = value.type.tensor_type
            self.types[value.name] = tensor_type.elem_type
            dims = tensor_type.shape.dim
            if tensor_type.HasField("shape") and all(d.dim_value or d.dim_param for d in dims):
                self.shapes[value.name] = tuple(d.dim_param or d.dim_value for d in dims)
        for tensor in self.initializers.values():
            self.shapes[tensor.name] = tuple(tensor.dims)
            self.types[tensor.name] = tensor.data_type

    def prune(self) -> None:
        """Drop the nodes and initialisers that no output depends on."""
        needed: set[str] = set(self.outputs)
        kept = []
        for node in reversed(self.sorted_nodes()):
            if any(name in needed for name in node.output):
                needed.update(read_by(node))
                kept.append(node)
        self.node_list = kept[::-1]
        self.initializers = {n: t for n, t in self.initializers.items() if n in needed}
        self.index()

    def sorted_nodes(self) -> list[NodeProto]:
        """Nodes in topological order: every value is made before it is read."""
        self.index()
        order: list[NodeProto] = []
        done: set[int] = set()
        for root in self.node_list:
            stack = [root]
            while stack:
                node = stack[-1]
                missing = [
                    self.producer[name]
                    for name in read_by(node)
                    if name in self.producer and id(self.producer[name]) not in done
                ]
                if missing and id(node) not in done:
                    stack.extend(missing)
                    continue
                stack.pop()
                if id(node) not in done:
                    done.add(id(node))
                    order.append(node)
        return order

    def finish(self) -> ModelProto:
        """The model with the remaining nodes in topological order and its initialisers."""
        self.prune()
        del self.model.graph.value_info[:]
        del self.model.graph.node[:]
        self.model.graph.node.extend(self.node_list)
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(self.initializers.values())
        domains = {node.domain for node in self.node_list}
        opset = next(o.version for o in self.model.opset_import if not o.domain)
        del self.model.opset_import[:]
        self.model.opset_import.append(helper.make_opsetid("", opset))
        if MICROSOFT in domains:
            self.model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        return self.model
