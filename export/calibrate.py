"""Run a graph over a text: its logits, and the second moments of what enters its products.

Part by part (`stream.py`), so that neither all weights nor all moments are in memory at once. Knows
nothing about what the moments are for.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from app.manifest import Graph
from export.graph import OnnxGraph
from export.stream import stream

Float32 = npt.NDArray[np.float32]

CHUNK_TOKENS: Final = 256


def second_moments(
    graph: OnnxGraph, folder: Path, shape: Graph, widths: dict[str, int], ids: Sequence[int]
) -> Iterator[dict[str, Float32]]:
    """Give the sum of valueᵀ · value over a text, for some values of a graph, some at a time.

    Args:
        graph: whose large constants lie below `folder`.
        folder: for files of our own, which are deleted again.
        shape: of the graph.
        widths: the values, [B, S, width], and their widths.
        ids: the text's tokens, read in pieces that know nothing of each other.

    Yields:
        float32 [width, width] for each of some values. The caller may take them out, to free them.
    """
    feeds = [inputs(shape, piece) for piece in pieces(shape, ids)]
    sizes = {name: 4 * width**2 for name, width in widths.items()}
    for names, runs in stream(graph, folder, feeds, widths, sizes, what="calibrate"):
        moments: dict[str, Float32] = {
            name: np.zeros((widths[name],) * 2, np.float32) for name in names
        }
        for values in runs:
            for name, value in zip(names, values, strict=True):
                rows: Float32 = value.reshape(-1, widths[name]).astype(np.float32, copy=False)
                moments[name] += rows.T @ rows
        yield moments


def page_logits(
    graph: OnnxGraph, folder: Path, shape: Graph, ids: Sequence[int]
) -> Iterator[Float32]:
    """Logits [S, V] of a graph for the pieces of a text, which know nothing of each other."""
    feeds = [inputs(shape, piece) for piece in pieces(shape, ids)]
    for names, runs in stream(graph, folder, feeds, ["logits"], what="read a page"):
        for values in runs:
            if names:
                yield values[0][0].astype(np.float32, copy=False)


def pieces(shape: Graph, ids: Sequence[int]) -> list[Sequence[int]]:
    """Cut a text into what is read at once."""
    size = min(CHUNK_TOKENS, shape.context_length)
    return [ids[i : i + size] for i in range(0, len(ids), size)]


def inputs(shape: Graph, ids: Sequence[int]) -> dict[str, npt.NDArray[np.generic]]:
    """What the graph takes for a text on an empty cache."""
    empty = np.zeros((1, shape.num_kv_heads, len(ids), shape.head_dim), np.dtype(shape.kv_dtype))
    length = np.array([len(ids)], np.int32)
    return {
        "input_ids": np.array([ids], np.int64),
        "query_seqlens": length,
        "seqlens_k": length - 1,
        "total_sequence_length": length,
        "logits_index": np.arange(len(ids), dtype=np.int64)[None],
        **{
            f"past_key_values.{layer}.{part}": empty
            for layer in range(shape.num_layers)
            for part in ("key", "value")
        },
    }
