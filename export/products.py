"""The products of a decoder with constant matrices: its projections and the output layer."""

from dataclasses import dataclass
from typing import Final

from onnx import NodeProto

from export.graph import OnnxGraph
from export.spill import Array

HADAMARD: Final = "hadamard"
"""A constant matrix that is none of the model's own; see `integer_products`."""


ROUTER: Final = 1
"""The input of MoE that chooses experts."""


@dataclass(frozen=True)
class Product:
    """A MatMul with a constant matrix."""

    node: NodeProto
    source: str
    """Its input [B, S, K], as the matrix expects it."""
    weight: str


def find_products(graph: OnnxGraph) -> list[Product]:
    """All products with constant matrices of the model's own, in the order of the graph.

    Without those that choose experts.
    """
    found = []
    for node in graph.sorted_nodes():
        if node.op_type != "MatMul" or node.input[1] == HADAMARD:
            continue
        if matrix(graph, node.input[1]) is not None and not _chooses_experts(graph, node):
            found.append(Product(node, node.input[0], node.input[1]))
    return found


def _chooses_experts(graph: OnnxGraph, product: NodeProto) -> bool:
    """Whether what a product makes reaches a router's input without another product."""
    seen, pending = set[str](), [*product.output]
    while pending:
        value = pending.pop()
        for node in graph.users.get(value, []):
            if node.op_type in ("MoE", "QMoE"):
                if node.input[ROUTER] == value:
                    return True
            elif node.op_type not in ("MatMul", "MatMulNBits", "GroupQueryAttention"):
                pending += [name for name in node.output if name and name not in seen]
                seen.update(node.output)
    return False


def matrix(graph: OnnxGraph, name: str) -> Array | None:
    """The constant of a name, if it is a matrix."""
    weight = graph.constant(name)
    return weight if weight is not None and weight.ndim == 2 else None
