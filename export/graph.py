"""An ONNX graph with an index: who makes a value, who uses it, what its shape is.

Knows how to rewire, not what is worth rewiring (`cleanup.py`, `quantise.py`).
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = npt.NDArray[np.generic]
Dim = int | str
MICROSOFT = "com.microsoft"
SHAPE_OF_FIRST_INPUT = {"SimplifiedLayerNormalization", "GroupQueryAttention"}
"""Operators that ONNX's shape inference doesn't know; their output is shaped like input 0."""


class Graph:
    """A model being rewritten; `finish` gives it back.

    Nodes are held in a plain list: protobuf copies a node each time it enters a model, and the
    index must point at the real ones.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.node_list: list[NodeProto] = []
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {value.name for value in model.graph.output}
        self.producer: dict[str, NodeProto] = {}
        self.users: defaultdict[str, list[NodeProto]] = defaultdict(list)
        self.shapes: dict[str, tuple[Dim, ...]] = {}
        self.types: dict[str, int] = {}
        self._fresh = 0
        self._hoist_constants()
        self.index()

    def _hoist_constants(self) -> None:
        """Make initialisers of Constant nodes: one kind of constant to look for."""
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
            for name in node.input:
                if name:
                    self.users[name].append(node)

    def nodes(self, *op_types: str) -> list[NodeProto]:
        """Nodes of the given types, in graph order."""
        return [node for node in self.node_list if node.op_type in op_types]

    def made_by(self, name: str, op_type: str) -> NodeProto | None:
        """The node behind a value, if it is of this type."""
        node = self.producer.get(name)
        return node if node is not None and node.op_type == op_type else None

    def used_once(self, name: str) -> bool:
        """Whether one node alone reads the value."""
        return len(self.users[name]) == 1 and name not in self.outputs

    def constant(self, name: str) -> Array | None:
        """The value of an initialiser."""
        tensor = self.initializers.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def add_constant(self, value: Array, hint: str, *, exact: bool = False) -> str:
        """A new initialiser, named `hint` or after it; returns its name."""
        name = hint if exact else self.fresh_name(hint)
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def fresh_name(self, hint: str) -> str:
        """A value name that nobody has."""
        self._fresh += 1
        return f"{hint}.{self._fresh}"

    def add(
        self, op_type: str, inputs: list[str], outputs: list[str], **attributes: object
    ) -> None:
        """A new node; an operator of Microsoft's unless its inputs and outputs are standard."""
        domain = str(attributes.pop("domain", ""))
        node = helper.make_node(op_type, inputs, outputs, domain=domain, **attributes)
        node.name = outputs[0]
        self.node_list.append(node)

    def remove(self, nodes: Iterable[NodeProto]) -> None:
        """Take nodes out."""
        gone = {id(node) for node in nodes}
        self.node_list = [node for node in self.node_list if id(node) not in gone]

    def replace(self, old: str, new: str) -> None:
        """Let every reader of `old` read `new`."""
        for node in self.users[old]:
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new
        self.users[new].extend(self.users.pop(old, []))

    def infer_shapes(self) -> None:
        """Symbolic shapes and types of all values, into `shapes` and `types`.

        ONNX does the work on a copy without weights, in which operators that it doesn't know
        stand as Identity of their first input.
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
        """Drop what no output needs: nodes, initialisers, stale shapes."""
        needed: set[str] = set(self.outputs)
        kept = []
        for node in reversed(self.sorted_nodes()):
            if any(name in needed for name in node.output):
                needed.update(node.input)
                kept.append(node)
        self.node_list = kept[::-1]
        self.initializers = {n: t for n, t in self.initializers.items() if n in needed}
        self.index()

    def sorted_nodes(self) -> list[NodeProto]:
        """Nodes in an order in which every value is made before it is read."""
        self.index()
        order: list[NodeProto] = []
        done: set[int] = set()
        for root in self.node_list:
            stack = [root]
            while stack:
                node = stack[-1]
                missing = [
                    self.producer[name]
                    for name in node.input
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
        """The model, pruned, in order, its initialisers written back."""
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
