"""Run a graph over a text: its logits, and the second moments of what enters its products.

One pass over the text for as many products as fit in memory, and another for the rest. Knows
nothing about what the moments are for.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import ValueInfoProto
from tqdm import tqdm

from app.manifest import Graph
from app.runtime.ort_decoder import session_options
from export.graph import OnnxGraph
from export.onnx_file import load_model, save_model

Float32 = npt.NDArray[np.float32]

CHUNK_TOKENS: Final = 256
MAX_BYTES: Final = 2 << 30
"""Moments that are added up at once."""
PROBED: Final = "probed.onnx"


def second_moments(
    model: Path, shape: Graph, widths: dict[str, int], ids: Sequence[int]
) -> Iterator[dict[str, Float32]]:
    """Give the sum of valueᵀ · value over a text, for some values of a graph, group by group.

    Args:
        model: the graph's file; another one is written beside it.
        shape: of the graph.
        widths: the values, [B, S, width], and their widths.
        ids: the text's tokens, read in pieces that know nothing of each other.

    Yields:
        float32 [width, width] for each value of the group.
    """
    groups = list(_grouped(widths))
    pieces = _pieces(shape, ids)
    with tqdm(total=len(groups) * len(pieces), unit="piece", desc="calibrate", leave=False) as bar:
        for names in groups:
            session = _probing(model, names)
            moments = {name: np.zeros((widths[name],) * 2, np.float32) for name in names}
            for piece in pieces:
                values = session.run(names, _inputs(shape, piece))
                for name, value in zip(names, values, strict=True):
                    rows = value.reshape(-1, widths[name])
                    moments[name] += rows.T @ rows
                bar.update()
            del session
            yield moments


def page_logits(model: Path, shape: Graph, ids: Sequence[int]) -> Float32:
    """Logits [S, V] of a graph for a text, read in pieces that know nothing of each other."""
    session = ort.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
    logits = [session.run(["logits"], _inputs(shape, p))[0][0] for p in _pieces(shape, ids)]
    return np.concatenate(logits)


def _pieces(shape: Graph, ids: Sequence[int]) -> list[Sequence[int]]:
    size = min(CHUNK_TOKENS, shape.context_length)
    return [ids[i : i + size] for i in range(0, len(ids), size)]


def _grouped(widths: dict[str, int]) -> Iterator[list[str]]:
    """Cut the values into groups whose moments fit."""
    group: list[str] = []
    size = 0
    for name, width in widths.items():
        if group and size + 4 * width**2 > MAX_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += 4 * width**2
    yield group


def _probing(model: Path, names: Iterable[str]) -> ort.InferenceSession:
    """A session of the graph that returns some of its inner values."""
    graph = OnnxGraph(load_model(model))
    graph.outputs = set(names)
    del graph.model.graph.output[:]
    # their types and shapes are for ONNX Runtime to find out
    graph.model.graph.output.extend([ValueInfoProto(name=name) for name in names])
    path = model.with_name(PROBED)
    files = save_model(graph.finish(), path)
    try:
        return ort.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])
    finally:
        for file in files:
            file.unlink()


def _inputs(shape: Graph, ids: Sequence[int]) -> dict[str, npt.NDArray[np.generic]]:
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
