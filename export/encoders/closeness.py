"""Compare an exported encoder with torch, on texts of many lengths, alone and in padded batches.

The graph runs in the server's own `OrtEncoder`: what is judged is what will be served.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from app.encoder_manifest import Closeness, EncoderGraph
from app.errors import EngineFailure, ModelBroken
from app.runtime.encoder import Row
from app.runtime.ort_encoder import OrtEncoder
from export.encoders.torch_encoder import TorchEncoder
from export.errors import QualityRefused, SourceUnusable
from export.file_checks import refusing
from export.validate import TEXT

Floats = npt.NDArray[np.float32]
WORDS = (1, 2, 3, 5, 8, 12, 17, 25, 40, 60, 90, 140)
"""Lengths of the texts that are compared; longer ones than the model takes are left out."""
LEAST_ROWS = 4
ROWS_PER_RUN = 8


def sample_rows(tokenizer: Any, graph: EncoderGraph, described: str) -> list[Row]:
    """Texts of many lengths out of the page that export/ keeps; pairs for a reranker.

    Raises:
        SourceUnusable: the tokenizer can't read them.
    """
    words = TEXT.read_text().split()
    rows, start = [], 0
    for _ in range(3):
        for count in WORDS:
            text = " ".join(words[start : start + count])
            start = (start + count) % (len(words) - max(WORDS))
            query = " ".join(words[start : start + 6])
            with refusing(f"{described}: its tokenizer can't read a page of English"):
                encoded = tokenizer.encode(query, text) if graph.width == 1 else (
                    tokenizer.encode(text)
                )  # fmt: skip
            if 1 <= len(encoded.ids) <= graph.context_length:
                rows.append(row_of(encoded.ids, encoded.type_ids))
    if len(rows) < LEAST_ROWS:
        raise SourceUnusable(
            f"{described}: {len(rows)} texts of a page of English fit its context of "
            f"{graph.context_length} tokens, at least {LEAST_ROWS} are needed"
        )
    largest = max(max(row.ids) for row in rows)
    if largest >= graph.vocab_size:
        raise SourceUnusable(
            f"{described}: its tokenizer has the token {largest}, the model's vocabulary "
            f"{graph.vocab_size} tokens"
        )
    return rows


def row_of(ids: Sequence[int], types: Sequence[int]) -> Row:
    """A tokenizer's result as the server feeds it."""
    return Row(ids, list(types).index(1) if 1 in types else 0)


def torch_vectors(encoder: TorchEncoder, rows: Sequence[Row], *, token_types: bool) -> Floats:
    """Vectors of torch, each text alone and without padding."""
    made = []
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([list(row.ids)])
            lengths = torch.tensor([len(row)], dtype=torch.int32)
            types = torch.zeros_like(ids)
            if row.first:
                types[:, row.first :] = 1
            made.append(encoder(ids, lengths, types if token_types else None)[0].numpy())
    return np.stack(made)


def graph_vectors(folder: Path, graph: EncoderGraph, rows: Sequence[Row]) -> Floats:
    """Vectors of an exported graph, in padded batches of texts of all lengths.

    Raises:
        QualityRefused: ONNX Runtime can't run it.
    """
    try:
        encoder = OrtEncoder(folder, graph, capacity=graph.context_length)
        made = [
            vector
            for start in range(0, len(rows), ROWS_PER_RUN)
            for vector in encoder.run(rows[start : start + ROWS_PER_RUN])
        ]
    except (EngineFailure, ModelBroken) as error:
        raise QualityRefused(f"ONNX Runtime can't run the graph: {error}") from error
    return np.array([list(vector) for vector in made], np.float32)


def compare(reference: Floats, found: Floats) -> Closeness:
    """Say how close vectors are; rows of one number are a reranker's scores.

    Raises:
        QualityRefused: they are not finite, or they don't depend on the text.
    """
    difference = float(np.abs(reference - found).max())
    if not math.isfinite(difference):
        raise QualityRefused("the vectors are not finite")
    if np.ptp(reference, axis=0).max() == 0:
        raise QualityRefused("the model gives all texts the same vector")
    if reference.shape[1] == 1:
        cosines = np.array([np.corrcoef(reference[:, 0], found[:, 0])[0, 1]])
    else:
        lengths = np.linalg.norm(reference, axis=1) * np.linalg.norm(found, axis=1)
        cosines = (reference * found).sum(1) / np.maximum(lengths, 1e-30)
    return Closeness(
        texts=len(reference),
        mean_cosine=float(cosines.mean()),
        min_cosine=float(cosines.min()),
        max_difference=difference,
    )


def figures(closeness: Closeness) -> str:
    """The figures in one line."""
    return (
        f"cosine {closeness.mean_cosine:.6f}, at least {closeness.min_cosine:.6f}, largest "
        f"difference {closeness.max_difference:.2g} on {closeness.texts} texts"
    )
