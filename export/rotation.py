"""Turn a decoder's residual stream and its value heads into bases in which no dimension stands out.

A few dimensions of the residual stream are hundreds of times the others, so that an int8 step wide
enough for them loses the rest. An orthogonal matrix R spreads them out and folds into the weights:
what writes the stream is multiplied by R, what reads it by its transpose, and RMSNorm passes a
rotation through once its own weights have moved into the products behind it. The values of each
head are turned by a matrix H likewise, and turned back by the weights behind attention. The numbers
stay the same but for rounding.

Which values are the stream is followed through the graph; a graph in which it meets anything else
keeps it as it is. Knows no architectures.

Source: Ashkboos et al., QuaRot, arXiv 2404.00456.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from onnx import NodeProto

from export.graph import OnnxGraph
from export.pieces import in_pieces
from export.progress import shown
from export.spill import Array
from export.turns import Float64, Turning, orthogonal, per_head

NORMS: Final = ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization")
SEED: Final = 0


@dataclass
class _Norm:
    """A norm of the stream."""

    node: NodeProto
    position: int
    """Of its weights among its inputs."""
    readers: list[NodeProto]
    """Products of its output."""


@dataclass
class _Stream:
    """The nodes around the values of a residual stream."""

    values: set[str] = field(default_factory=set)
    tables: list[NodeProto] = field(default_factory=list)
    """Embeddings that begin it."""
    writers: list[NodeProto] = field(default_factory=list)
    """Products that are added to it."""
    biases: list[tuple[NodeProto, int]] = field(default_factory=list)
    """Constants that are added to it, as (node, input index)."""
    norms: list["_Norm"] = field(default_factory=list)


class _MeetsOther(Exception):
    """The stream meets an operator that a rotation doesn't pass."""


def rotate_stream(graph: OnnxGraph) -> bool:
    """Rotate the residual stream; returns whether it could be."""
    graph.index()
    try:
        stream = _follow(graph)
    except _MeetsOther:
        return False
    width = _width(graph, stream)
    turn = orthogonal(width, SEED)
    scales = [_take_scale(graph, norm) for norm in stream.norms]
    for node in stream.tables:
        _change(graph, node, 0, lambda table: table @ turn)
    for node in stream.writers:
        _change(graph, node, 1, lambda weight: weight @ turn)
    for node, position in stream.biases:
        _change(graph, node, position, lambda bias: bias @ turn)
    for norm, scale in shown([*zip(stream.norms, scales, strict=True)], "rotate"):
        for node in norm.readers:
            _change(graph, node, 1, partial(_read_turned, turn=turn, scale=scale), columns=True)
    graph.prune()
    return True


def rotate_values(graph: OnnxGraph) -> int:
    """Rotate the values of each head; returns in how many layers it could be done."""
    count = 0
    for attention in graph.nodes("GroupQueryAttention"):
        graph.index()
        output = attention.output[0]
        readers = graph.users[output]
        makers = _value_makers(graph, attention)
        if makers is None or not all(_is_product(graph, n, output) for n in readers):
            continue
        options = {a.name: a for a in attention.attribute}
        num_heads, kv_heads = options["num_heads"].i, options["kv_num_heads"].i
        head_dim = int(graph.shapes[attention.input[3]][-1])
        turn = orthogonal(head_dim, SEED + 1)
        for node, position in makers:
            _change(graph, node, position, partial(_turn_last, turn=per_head(turn, kv_heads)))
        for node in readers:
            _change(graph, node, 1, partial(np.matmul, per_head(turn, num_heads).T), columns=True)
        count += 1
    graph.prune()
    return count


def _follow(graph: OnnxGraph) -> _Stream:
    """Follow the residual stream from the embedding to the output layer.

    Raises:
        _MeetsOther: it meets something that a rotation doesn't pass.
    """
    stream = _Stream()
    for node in graph.nodes("Gather"):
        table = graph.constant(node.input[0])
        if table is not None and table.ndim == 2 and node.input[1] == "input_ids":
            stream.tables.append(node)
    if len(stream.tables) != 1:
        raise _MeetsOther
    pending = [stream.tables[0].output[0]]
    while pending:
        value = pending.pop()
        if value in stream.values:
            continue
        if value in graph.outputs:
            raise _MeetsOther
        stream.values.add(value)
        for node in graph.users[value]:
            pending += _pass_on(graph, stream, node, value)
    return stream


def _pass_on(graph: OnnxGraph, stream: _Stream, node: NodeProto, value: str) -> list[str]:
    """Go through a node that reads the stream; returns what else belongs to the stream then."""
    if node.op_type in ("Add", "SkipSimplifiedLayerNormalization"):
        more = _joined(graph, stream, node, value)
        if node.op_type == "Add":
            return [*more, node.output[0]]
        if len(node.output) > 3 and node.output[3]:
            more.append(node.output[3])
        _norm(graph, stream, node, 2)
        return more
    if node.op_type == "SimplifiedLayerNormalization":
        _norm(graph, stream, node, 1)
        return []
    if node.op_type in ("GatherND", "Identity"):
        return [node.output[0]]
    if node.op_type in ("Mul", "Div"):
        other = node.input[1] if node.input[0] == value else node.input[0]
        factor = graph.constant(other)
        if factor is not None and factor.size == 1 and node.input[0] == value:
            return [node.output[0]]
    raise _MeetsOther


def _joined(graph: OnnxGraph, stream: _Stream, node: NodeProto, value: str) -> list[str]:
    """Take what is added to the stream: a product, a constant, or more of the stream."""
    position = 1 if node.input[0] == value else 0
    other = node.input[position]
    if other in stream.values:
        return []
    bias = graph.constant(other)
    if bias is not None:
        if bias.ndim != 1:
            raise _MeetsOther
        if (node, position) not in stream.biases:
            stream.biases.append((node, position))
        return []
    _written(graph, stream, other)
    return []


def _written(graph: OnnxGraph, stream: _Stream, value: str) -> None:
    """Take the product that makes what is added to the stream, through factors and biases.

    Raises:
        _MeetsOther: it is made by something else.
    """
    maker = graph.producer.get(value)
    while maker is not None and graph.used_once(value):
        constants = [graph.constant(name) for name in maker.input]
        if _is_product(graph, maker, maker.input[0]):
            stream.writers.append(maker)
            return
        at = next((i for i, constant in enumerate(constants) if constant is not None), None)
        constant = None if at is None else constants[at]
        if at is None or constant is None or len(maker.input) != 2:
            break
        if maker.op_type == "Add" and constant.ndim == 1:
            stream.biases.append((maker, at))
        elif not (maker.op_type in ("Mul", "Div") and constant.size == 1 and at == 1):
            break
        value = maker.input[1 - at]
        maker = graph.producer.get(value)
    raise _MeetsOther


def _norm(graph: OnnxGraph, stream: _Stream, node: NodeProto, position: int) -> None:
    """Take a norm of the stream and the products behind it.

    Raises:
        _MeetsOther: it is read by something else, or its weights are none.
    """
    if any(norm.node is node for norm in stream.norms):
        return
    scale = graph.constant(node.input[position])
    name = node.output[0]
    readers = list(graph.users[name])
    for reader in graph.users[name]:  # the output layer picks rows between its norm and its product
        if reader.op_type == "GatherND":
            readers.remove(reader)
            readers += graph.users[reader.output[0]]
    if scale is None or name in graph.outputs or not readers:
        raise _MeetsOther
    for reader in readers:
        if reader.op_type != "MatMul" or graph.constant(reader.input[1]) is None:
            raise _MeetsOther
    stream.norms.append(_Norm(node, position, readers))


def _is_product(graph: OnnxGraph, node: NodeProto, source: str) -> bool:
    """Whether a node multiplies a value with a constant matrix."""
    weight = graph.constant(node.input[1]) if node.op_type == "MatMul" else None
    return weight is not None and weight.ndim == 2 and node.input[0] == source


def _width(graph: OnnxGraph, stream: _Stream) -> int:
    return int(graph.initializers[stream.tables[0].input[0]].dims[1])


def _take_scale(graph: OnnxGraph, norm: _Norm) -> Array:
    """The weights of a norm, which are ones afterwards."""
    scale = graph.constant(norm.node.input[norm.position])
    assert scale is not None
    norm.node.input[norm.position] = graph.add_constant(np.ones_like(scale), "ones")
    return scale


def _read_turned(weight: Float64, turn: Float64, scale: Array) -> Float64:
    """A matrix that reads a norm, for a stream that is turned and a norm without weights."""
    scaled = scale.astype(np.float64)[:, None] * weight
    return turn.T @ scaled.astype(scale.dtype).astype(np.float64)


def _value_makers(graph: OnnxGraph, attention: NodeProto) -> list[tuple[NodeProto, int]] | None:
    """The constants that a layer's values are linear in, as (node, input index)."""
    name = attention.input[2] or attention.input[0]
    makers: list[tuple[NodeProto, int]] = []
    while (node := graph.producer.get(name)) is not None and graph.used_once(name):
        constant = next((i for i, n in enumerate(node.input) if n in graph.initializers), None)
        if node.op_type == "MatMul" and constant == 1:
            return [*makers, (node, 1)]
        if node.op_type != "Add" or constant is None:
            return None
        makers.append((node, constant))
        name = node.input[1 - constant]
    return None


def _turn_last(weight: Float64, turn: Float64) -> Float64:
    """Turn the last columns, which make the values where Q, K and V are packed."""
    return np.concatenate([weight[..., : -len(turn)], weight[..., -len(turn) :] @ turn], -1)


def _change(
    graph: OnnxGraph,
    node: NodeProto,
    position: int,
    change: Callable[[Float64], Float64],
    *,
    columns: bool = False,
) -> None:
    """Give one node another constant, computed in float64; others that read it keep theirs.

    Args:
        graph: is changed.
        node: reads the constant.
        position: of the constant among its inputs.
        change: makes each row of the result out of that row alone.
        columns: `change` makes each column out of that column instead.
    """
    value = graph.constant(node.input[position])
    assert value is not None
    changed = graph.room(value.shape, value.dtype)
    if value.ndim == 2:
        source, target = (value.T, changed.T) if columns else (value, changed)

        def work(start: int, end: int) -> None:
            piece = source[start:end].astype(np.float64)
            target[start:end] = change(piece.T).T if columns else change(piece)

        in_pieces(work, len(source), 2 * source.shape[1] * source.itemsize)
    else:
        changed[...] = change(value.astype(np.float64))
    node.input[position] = graph.add_constant(changed, f"{node.name or node.op_type}.turned")
    if node.op_type == "MatMul":
        graph.turnings.setdefault(node.output[0], []).append(Turning(change, columns))
