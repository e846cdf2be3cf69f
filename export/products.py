"""The products of a decoder with constant matrices: its projections and the output layer."""

from dataclasses import dataclass
from typing import Final

from onnx import NodeProto

from export.graph import Array, OnnxGraph

HADAMARD: Final = "hadamard"
"""A constant matrix that is none of the model's own; see `integer_products`."""


@dataclass(frozen=True)
class Product:
    """A MatMul with a constant matrix."""

    node: NodeProto
    source: str
    """Its input [B, S, K], as the matrix expects it."""
    weight: str


def find_products(graph: OnnxGraph) -> list[Product]:
    """All products with constant matrices of the model's own, in the order of the graph."""
    found = []
    for node in graph.sorted_nodes():
        if node.op_type != "MatMul" or node.input[1] == HADAMARD:
            continue
        if matrix(graph, node.input[1]) is not None:
            found.append(Product(node, node.input[0], node.input[1]))
    return found


def matrix(graph: OnnxGraph, name: str) -> Array | None:
    """The constant of a name, if it is a matrix."""
    weight = graph.constant(name)
    return weight if weight is not None and weight.ndim == 2 else None
