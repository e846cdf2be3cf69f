"""Store the weights of mixtures of experts in 8 or 4 bits: MoE becomes QMoE.

The blocks are those of projections (`quantise.py`), without the remainders of 4 bits, for which an
expert's product has no room. The kernel multiplies with int8 activations, in 4 bits because
`accuracy_level` 4 says so. A router keeps its weights: rounding could choose other experts.

The kernel adds up a token's experts in an order that depends on the other tokens, which shows with
more than two of them. In 8 bits each choice is then a row of its own, with one expert, and the rows
are added up behind the node: bitwise the same alone and together, in about the same time.

Source: com.microsoft.QMoE in ONNX Runtime's ContribOperators.md.
"""

from typing import Any, Final

import numpy as np
from onnx import NodeProto, helper

from export.graph import MICROSOFT, OnnxGraph
from export.quantise import (
    BITS,
    BLOCK_SIZE,
    INT8_ACTIVATIONS,
    PARTS,
    Scheme,
    quantise_rows,
    store_blocks,
)

FC1, FC1_BIAS, FC2, FC2_BIAS = range(2, 6)
"""Inputs of MoE."""
ANY_ORDER: Final = 2
"""Numbers that give the same sum in any order."""
FAR: Final = -1e30
"""A logit that softmax makes nothing of."""
RAW: Final = 0
"""`weights_prepacked`: blocks as they are, [E, N, K / 32, 32 × bits / 8]."""


def quantise_experts(graph: OnnxGraph, scheme: Scheme) -> int:
    """Quantise the experts of every layer in place; returns how many matrices that were.

    Experts whose widths aren't multiples of the blocks' keep their weights.
    """
    count = 0
    for node in graph.nodes("MoE"):
        shapes = [graph.initializers[node.input[i]].dims for i in (FC1, FC2)]
        if any(dims[2] % BLOCK_SIZE for dims in shapes):
            continue
        _replace(graph, node, scheme)
        count += sum(dims[0] for dims in shapes)
    graph.prune()
    return count


def _replace(graph: OnnxGraph, node: NodeProto, scheme: Scheme) -> None:
    biases = [node.input[i] if len(node.input) > i else "" for i in (FC1_BIAS, FC2_BIAS)]
    fc1, fc2 = (_blocks(graph, node.input[i], scheme) for i in (FC1, FC2))
    options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    inputs, output = list(node.input[:2]), node.output[0]
    if scheme == "int8" and options["k"] > ANY_ORDER:
        num_experts = graph.initializers[fc1[0]].dims[0]
        *inputs, output = _one_by_one(graph, node, options["k"], num_experts)
        options["k"] = 1
    for (codes, scales, _), bias in zip((fc1, fc2), biases, strict=True):
        inputs += [codes, scales, bias]
    inputs += ["", "", "", fc1[2], fc2[2]]
    while inputs[-1] == "":
        inputs.pop()
    graph.remove([node])
    graph.add(
        "QMoE",
        inputs,
        [output],
        domain=MICROSOFT,
        expert_weight_bits=BITS[scheme],
        block_size=BLOCK_SIZE,
        accuracy_level=INT8_ACTIVATIONS,
        weights_prepacked=RAW,
        **options,
    )


def _one_by_one(
    graph: OnnxGraph, node: NodeProto, k: int, num_experts: int
) -> tuple[str, str, str]:
    """Put nodes around a layer's experts that give each of a token's k choices a row of its own.

    Returns:
        Names of the rows [T, k, H], their routers [T × k, E], and what is made of them [T, k, H].
    """
    x, router = node.input[:2]

    def constant(*values: int) -> str:
        return graph.add_constant(np.array(values, np.int64), "sizes")

    def made(op_type: str, inputs: list[str], **attributes: Any) -> str:
        name = graph.fresh_name("choices")
        graph.add(op_type, inputs, [name], **attributes)
        return name

    largest, chosen = graph.fresh_name("largest"), graph.fresh_name("chosen")
    graph.add("TopK", [router, constant(k)], [largest, chosen])
    codes = graph.add_constant(np.array([FAR, 0], np.float32), "codes")
    count = graph.add_constant(np.array(num_experts), "count")
    only = made("OneHot", [chosen, count, codes])
    routers = made("Reshape", [only, constant(-1, num_experts)])
    width = graph.initializers[node.input[FC1]].dims[2]
    tokens = made("Reshape", [x, constant(-1, 1, width)])
    rows = made("Expand", [tokens, constant(1, k, 1)])
    shares = made("Unsqueeze", [made("Softmax", [largest], axis=-1), constant(1)])
    found = graph.fresh_name("found")
    total = made("MatMul", [shares, found])
    graph.add("Reshape", [total, made("Shape", [x])], list(node.output))
    return rows, routers, found


def _blocks(graph: OnnxGraph, name: str, scheme: Scheme) -> tuple[str, str, str]:
    """Store a stack [E, N, K] in blocks; names of codes, scales and zero points, if there are."""
    stack = graph.constant(name)
    assert stack is not None
    count, rows, columns = stack.shape
    matrix = stack.reshape(-1, columns)
    store_blocks(graph, name, matrix, lambda some: quantise_rows(some, scheme))
    widths = dict(zip(PARTS, (columns * BITS[scheme] // 8, columns // BLOCK_SIZE, -1), strict=True))
    names = []
    for part in PARTS:
        stored = graph.initializers.get(f"{name}.{part}")
        if stored is None:
            names.append("")
            continue
        width = widths[part] if widths[part] > 0 else stored.dims[-1]
        names.append(graph.add_reshaped(stored.name, (count, rows, width), stored.name))
    return names[0], names[1], names[2]
