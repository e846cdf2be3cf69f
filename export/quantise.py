"""Store the weights of projections in 8 or 4 bits, in blocks of 32 that share a scale.

Only a MatMul with a constant matrix changes: it becomes MatMulNBits, whose fast CPU kernel
multiplies with int8 activations (`accuracy_level` 4). An embedding that shares the output layer's
matrix reads the same bytes through GatherBlockQuantized. Whether the result is good enough is
measured in `validate.py`, not here.

In 4 bits a block is `step × code + minimum`. The kernel takes the minimum only as a whole number
of steps, and rounding it to one costs sixty times the divergence of 8 bits. The remainder is one
number per block, and its share of a product is that number times the mean of the input's block (and
the block size): the means are appended to the input, and the remainders to the matrix, also in
4 bits. The output layer stays in 8 bits.

Source: com.microsoft.MatMulNBits and GatherBlockQuantized in ContribOperators.md.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from export.graph import MICROSOFT, OnnxGraph
from export.own_grid import steps_between
from export.pieces import in_pieces
from export.products import find_products, matrix
from export.progress import shown
from export.spill import Array

Scheme = Literal["int8", "int4"]
BITS: dict[Scheme, int] = {"int8": 8, "int4": 4}
BLOCK_SIZE = 32
INT8_ACTIVATIONS = 4
PARTS: Final = ("codes", "scales", "zero_points")
EQUAL_BYTES: Final = 1 << 24
"""What two matrices are compared in at once."""


@dataclass(frozen=True)
class Blocks:
    """A matrix [N, K] quantised in blocks along K."""

    codes: npt.NDArray[np.uint8]
    """[N, K / 32, 32 × bits / 8]; with 4 bits the first of two codes is a byte's low half."""
    scales: Array
    """[N, K / 32]."""
    zero_points: npt.NDArray[np.uint8] | None
    """[N, K / 32], two per byte with 4 bits; None: the middle of the range."""


def quantise_rows(weight: Array, scheme: Scheme) -> Blocks:
    """Quantise a matrix [N, K], each block of 32 values on a grid of its own.

    8 bits are symmetric around 128, like GGUF's Q8_0, so that a Q8_0 source is stored exactly.
    4 bits range from the block's minimum to its maximum and represent zero exactly.
    """
    rows, columns = weight.shape
    blocks = -(-columns // BLOCK_SIZE)
    padded = np.zeros((rows, blocks * BLOCK_SIZE), np.float32)
    padded[:, :columns] = weight
    values = padded.reshape(rows, blocks, BLOCK_SIZE)
    if scheme == "int8":
        scales = np.abs(values).max(-1) / 127
        codes = np.rint(values / _nonzero(scales)[..., None]) + 128
        return Blocks(codes.astype(np.uint8), scales.astype(weight.dtype), None)
    low, high = np.minimum(values.min(-1), 0), np.maximum(values.max(-1), 0)
    scales = (high - low) / 15
    zero = np.clip(np.rint(-low / _nonzero(scales)), 0, 15)
    codes = np.clip(np.rint(values / _nonzero(scales)[..., None]) + zero[..., None], 0, 15)
    return _four_bits(codes, scales, zero, weight.dtype)


def quantise_with_means(weight: Array) -> Blocks:
    """Quantise a matrix [N, K] to 4 bits, followed by the remainders of the rounded minima.

    Each block has a minimum and a step of its own, and those that its values come with, if they
    come from 4 bits: a source in Q4_1, or in GPTQ or AWQ in whole
    blocks, is stored exactly. The result multiplies the
    input that `append_means` makes, K + K / 32 wide.
    """
    values = weight.reshape(len(weight), -1, BLOCK_SIZE).astype(np.float32)
    low, high = values.min(-1), values.max(-1)
    steps = steps_between(values, low, high)
    scales = (high - low) / steps
    step = _nonzero(scales)
    # a block on one side of zero has codes that count from there, if there are as many
    lowest = np.clip(np.rint(low / step), 0, 15 - steps)
    codes = np.rint((values - low[..., None]) / step[..., None]) + lowest[..., None]
    zero = np.clip(np.rint(lowest - low / step), 0, 15)
    remainders = BLOCK_SIZE * (low + (zero - lowest) * scales)  # of means: sum = size × mean
    rest = quantise_rows(remainders.astype(weight.dtype), "int4")
    whole = _four_bits(codes, scales, zero, weight.dtype)
    zeros = np.concatenate([zero, _unpair(rest.zero_points, rest.scales.shape[1])], -1)
    return Blocks(
        np.concatenate([whole.codes, rest.codes], 1),
        np.concatenate([whole.scales, rest.scales], 1),
        _pair_up(zeros.astype(np.uint8)),
    )


def append_means(graph: OnnxGraph, source: str) -> str:
    """Append the means of its blocks to a value [B, S, K]; returns the name of the result.

    AveragePool is the fastest of three ways: with a product with a 0/1 matrix a step takes a tenth
    longer, with Reshape and ReduceSum a fiftieth (bench/LOG.md, 2026-11-24).
    """
    means, extended = graph.fresh_name("means_of_blocks"), graph.fresh_name("with_means")
    graph.add("AveragePool", [source], [means], kernel_shape=[BLOCK_SIZE], strides=[BLOCK_SIZE])
    graph.add("Concat", [source, means], [extended], axis=-1)
    return extended


def _four_bits(
    codes: npt.NDArray[np.float32],
    scales: npt.NDArray[np.float32],
    zero: npt.NDArray[np.float32],
    dtype: np.dtype[np.generic],
) -> Blocks:
    return Blocks(
        _pair_up(codes.astype(np.uint8)), scales.astype(dtype), _pair_up(zero.astype(np.uint8))
    )


def _nonzero(scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.where(scales == 0, np.float32(1), scales)


def _pair_up(nibbles: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pack 4-bit values along the last axis, two per byte."""
    if nibbles.shape[-1] % 2:
        nibbles = np.concatenate([nibbles, np.zeros_like(nibbles[..., :1])], -1)
    return nibbles[..., ::2] | np.left_shift(nibbles[..., 1::2], np.uint8(4))


def _unpair(pairs: npt.NDArray[np.uint8] | None, count: int) -> npt.NDArray[np.uint8]:
    """The first `count` 4-bit values of each row, one per byte."""
    assert pairs is not None
    both = np.stack([pairs & 15, pairs >> 4], -1)
    return both.reshape(len(pairs), -1)[:, :count]


def quantise(graph: OnnxGraph, scheme: Scheme) -> int:
    """Quantise every projection in place; returns how many there are."""
    with_means: dict[str, str] = {}
    products = find_products(graph)
    for product in shown(products, "quantise"):
        node, source, name = product.node, product.source, product.weight
        weight = matrix(graph, name)
        assert weight is not None
        bits: Scheme = "int8" if product is products[-1] else scheme
        columns = len(weight)
        if bits == "int4" and columns % BLOCK_SIZE == 0:
            if source not in with_means:
                with_means[source] = append_means(graph, source)
            node.input[0] = with_means[source]
            store_blocks(graph, name, weight.T, quantise_with_means)
            columns += columns // BLOCK_SIZE
        else:
            store_blocks(graph, name, weight.T, lambda rows, b=bits: quantise_rows(rows, b))  # type: ignore[misc]
        _replace_product(graph, node, columns, bits)
    share_embedding(graph, dict.fromkeys(product.weight for product in products))
    graph.prune()
    return len(products)


def store_blocks(
    graph: OnnxGraph, name: str, weight: Array, quantiser: Callable[[Array], Blocks]
) -> None:
    """Add a matrix's blocks as constants of its name and theirs, unless they are there already.

    Args:
        graph: is changed.
        name: of the matrix.
        weight: [N, K].
        quantiser: of some of its rows.
    """
    if f"{name}.codes" in graph.initializers:
        return
    first = quantiser(weight[:1])
    stored = {
        part: graph.room((len(weight), *value.shape[1:]), value.dtype)
        for part in PARTS
        if (value := getattr(first, part)) is not None
    }

    def store(start: int, end: int) -> None:
        blocks = quantiser(weight[start:end])
        for part, room in stored.items():
            room[start:end] = getattr(blocks, part)

    in_pieces(store, len(weight), weight.shape[1] * weight.itemsize)
    for part, room in stored.items():
        graph.add_constant(room, f"{name}.{part}", exact=True)


def _replace_product(graph: OnnxGraph, node: NodeProto, columns: int, scheme: Scheme) -> None:
    name, output = node.input[1], node.output[0]
    stored = [f"{name}.{part}" for part in PARTS]
    inputs = [node.input[0], *(part if part in graph.initializers else "" for part in stored)]
    rows = graph.initializers[f"{name}.codes"].dims[0]
    graph.index()
    gone = [node]
    users = graph.users[output]
    if len(users) == 1 and users[0].op_type == "Add" and output not in graph.outputs:
        other = next(n for n in users[0].input if n != output)
        bias = graph.constant(other)
        if bias is not None and bias.shape == (rows,):
            inputs += ["", other]
            output = users[0].output[0]
            gone.append(users[0])
    while inputs[-1] == "":
        inputs.pop()
    graph.remove(gone)
    graph.add("MatMulNBits", inputs, [output], **block_options(rows, columns, scheme))


def block_options(rows: int, columns: int, scheme: Scheme) -> dict[str, Any]:
    """The attributes of MatMulNBits with a matrix [N, K], and its domain."""
    return {
        "K": columns,
        "N": rows,
        "bits": BITS[scheme],
        "block_size": BLOCK_SIZE,
        "accuracy_level": INT8_ACTIVATIONS,
        "domain": MICROSOFT,
    }


def share_embedding(graph: OnnxGraph, names: Iterable[str]) -> None:
    """Make the token embedding read the output layer's bytes where both share one matrix."""
    for node in graph.nodes("Gather"):
        table = graph.constant(node.input[0])
        if table is None or table.ndim != 2 or table.shape[1] % BLOCK_SIZE:
            continue
        for name in names:
            stored = graph.constant(name)
            whole_bytes = f"{name}.zero_points" not in graph.initializers
            if stored is None or not whole_bytes or not _equal(stored.T, table):
                continue
            _gather_blocks(graph, node, name, f"{name}.scales")
            break


def _equal(a: Array, b: Array) -> bool:
    """Whether two matrices are the same."""
    rows = max(1, EQUAL_BYTES // max(1, b.shape[1] * b.itemsize))
    return a.shape == b.shape and all(
        np.array_equal(a[i : i + rows], b[i : i + rows]) for i in range(0, len(a), rows)
    )


def quantise_embedding(graph: OnnxGraph) -> None:
    """Store embeddings of their own, which no output layer shares, in 8-bit blocks."""
    for node in graph.nodes("Gather"):
        name = node.input[0]
        table = graph.constant(name)
        if table is not None and table.ndim == 2 and table.shape[1] % BLOCK_SIZE == 0:
            store_blocks(graph, name, table, lambda rows: quantise_rows(rows, "int8"))
            shape = tuple(graph.initializers[f"{name}.scales"].dims)
            scales = graph.add_reshaped(f"{name}.scales", shape, "embedding.scales")
            _gather_blocks(graph, node, name, scales)
    graph.prune()


def _gather_blocks(graph: OnnxGraph, node: NodeProto, name: str, scales: str) -> None:
    """Replace a Gather by one of 8-bit blocks.

    Args:
        graph: is changed.
        node: the Gather.
        name: of its table's blocks, see `store_blocks`.
        scales: the name that the blocks' scales have in the graph.
    """
    blocks = graph.constant(f"{name}.codes")
    assert blocks is not None
    columns = blocks.shape[1] * BLOCK_SIZE
    codes = graph.add_reshaped(f"{name}.codes", (len(blocks), columns), "embedding.codes")
    middle = np.full(blocks.shape[:2], 128, np.uint8)
    zero_points = graph.add_constant(middle, "embedding.zero_points")
    graph.remove([node])
    graph.add(
        "GatherBlockQuantized",
        [codes, node.input[1], scales, zero_points],
        [node.output[0]],
        bits=8,
        block_size=BLOCK_SIZE,
        gather_axis=0,
        quantize_axis=1,
        domain=MICROSOFT,
    )
