"""Multiply in int8: weights with one step a column, inputs with one step a token.

A MatMul with a constant matrix becomes MatMulIntegerToFloat, whose CPU kernels add up products of
codes exactly, in int32: of uint8 and int8 with VNNI or AMX alone (`app.runtime.arithmetic`), of
uint8 and uint8 on every processor, at a lower speed, to bitwise the same results. A token's step is
its largest value over 127, found by plain nodes that all products of one input share. The input of
a product behind an activation function has outliers that no rotation of the weights can reach, so
it is turned by a Hadamard matrix in the graph, block by block, and the weights by its inverse.

Source: com.microsoft.MatMulIntegerToFloat in ContribOperators.md.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from app.model_files import Arithmetic
from export.graph import MICROSOFT, OnnxGraph
from export.products import HADAMARD, Product, find_products, matrix
from export.spill import Array
from export.turns import hadamard

MIDDLE: Final = 128
"""The uint8 code of zero."""
TURNED: Final = 64
"""Neighbouring dimensions that a Hadamard matrix in the graph mixes."""


def turn_activations(graph: OnnxGraph) -> int:
    """Turn the inputs of products that nothing linear makes; returns how many.

    A reader of Mul (of a gate and a value) is one, whose input's width is a multiple of `TURNED`.
    """
    turn = hadamard(TURNED)
    turned: dict[str, str] = {}
    for product in find_products(graph):
        maker = graph.producer.get(product.source)
        weight = matrix(graph, product.weight)
        assert weight is not None
        if maker is None or maker.op_type != "Mul" or len(weight) % TURNED:
            continue
        if product.source not in turned:
            turned[product.source] = _turned(graph, product.source, len(weight))
        inverse = graph.room(weight.shape, weight.dtype)
        for start in range(0, len(weight), TURNED):
            rows = slice(start, start + TURNED)
            inverse[rows] = turn.T @ weight[rows].astype(np.float64)
        product.node.input[0] = turned[product.source]
        product.node.input[1] = graph.add_constant(inverse, product.weight)
    graph.prune()
    return len(turned)


def _turned(graph: OnnxGraph, source: str, width: int) -> str:
    turn = _shared(graph, HADAMARD, hadamard(TURNED).astype(np.float32))
    blocks, mixed, result = (graph.fresh_name(f"{what}_by_hadamard") for what in "abc")
    shape = np.array([0, 0, width // TURNED, TURNED], np.int64)
    graph.add("Reshape", [source, graph.add_constant(shape, "blocks")], [blocks])
    graph.add("MatMul", [blocks, turn], [mixed])
    whole = graph.add_constant(np.array([0, 0, width], np.int64), "whole")
    graph.add("Reshape", [mixed, whole], [result])
    return result


def replace_product(
    graph: OnnxGraph,
    product: Product,
    codes: Array,
    steps: npt.NDArray[np.float32],
    quantised: dict[str, tuple[str, str]],
    *,
    arithmetic: Arithmetic,
) -> None:
    """Put an integer product in a product's place.

    Args:
        graph: is changed.
        product: one of `find_products`.
        codes: int8 [K, N], within ±127.
        steps: [N].
        quantised: the inputs that are quantised already; is added to.
        arithmetic: `u8s8` stores the codes as they are, `any` as uint8, `MIDDLE` higher.
    """
    if product.source not in quantised:
        quantised[product.source] = _quantised(graph, product.source)
    codes_in, largest = quantised[product.source]
    raw = graph.fresh_name("product")
    middle = _shared(graph, "middle", np.uint8(MIDDLE))
    stored, zeros = codes, [middle]
    if arithmetic == "any":
        # the highest bit turned over: int8 + 128, as uint8
        stored, zeros = codes.view(np.uint8) ^ np.uint8(MIDDLE), [middle, middle]
    graph.add(
        "MatMulIntegerToFloat",
        [
            codes_in,
            graph.add_constant(stored, f"{product.weight}.codes"),
            _shared(graph, "input_step", np.float32(1 / 127)),
            graph.add_constant(steps, f"{product.weight}.steps"),
            *zeros,
        ],
        [raw],
        domain=MICROSOFT,
    )
    graph.remove([product.node])
    graph.add("Mul", [raw, largest], [product.node.output[0]])


def _quantised(graph: OnnxGraph, source: str) -> tuple[str, str]:
    """Quantise a value [B, S, K]; names of the codes and of each token's largest value."""
    sizes, largest, scaled, codes = (
        graph.fresh_name(name) for name in ("sizes", "largest", "scaled", "codes")
    )
    graph.add("Abs", [source], [sizes])
    graph.add("ReduceMax", [sizes, _shared(graph, "last", np.array([-1]))], [largest], keepdims=1)
    # A token of nothing but zeros: its codes are those of no number, and the product is times 0.
    graph.add("Div", [source, largest], [scaled])
    step, middle = _shared(graph, "input_step", np.float32(1 / 127)), np.uint8(MIDDLE)
    graph.add("QuantizeLinear", [scaled, step, _shared(graph, "middle", middle)], [codes])
    return codes, largest


def _shared(graph: OnnxGraph, name: str, value: object) -> str:
    """A constant that many nodes read."""
    if name not in graph.initializers:
        graph.add_constant(np.asarray(value), name, exact=True)
    return name
