"""Measure how far a library's logits are from torch's, by the figures of export/validate.py.

Knows only arrays, and needs no torch, so that `bench compare` runs without the exporter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.runtime.decoder import FloatArray

ROWS = 64
"""Positions that are compared at once; each has as many logits as the vocabulary has tokens."""


@dataclass(frozen=True)
class PeerQuality:
    """The figures of one library against torch."""

    mean_kl: float
    """Mean Kullback-Leibler divergence, nats a token."""
    top1_agreement: float
    perplexity: float


def quality(reference: FloatArray, logits: FloatArray, ids: Sequence[int]) -> PeerQuality:
    """Compare logits [S, V] over a text of S tokens with the reference's.

    Raises:
        ValueError: the shapes don't match the text, or a logit is not finite.
    """
    if logits.shape != reference.shape or len(ids) != len(reference):
        raise ValueError(f"logits {logits.shape}, reference {reference.shape}, {len(ids)} tokens")
    kl, agree, loss = 0.0, 0, 0.0
    for start in range(0, len(ids), ROWS):
        rows = slice(start, start + ROWS)
        if not np.isfinite(logits[rows]).all():
            raise ValueError(f"a logit of positions {start} … {start + ROWS} is not finite")
        theirs, ours = log_softmax(reference[rows]), log_softmax(logits[rows])
        kl += float((np.exp(theirs) * (theirs - ours)).sum())
        agree += int((theirs.argmax(1) == ours.argmax(1)).sum())
        following = np.array(ids[start + 1 : start + ROWS + 1])
        loss -= float(ours[np.arange(len(following)), following].sum())
    return PeerQuality(
        mean_kl=kl / len(ids),
        top1_agreement=agree / len(ids),
        perplexity=float(np.exp(loss / (len(ids) - 1))),
    )


def log_softmax(rows: FloatArray) -> npt.NDArray[np.float64]:
    """Log-softmax of each row in float64: divergences are differences of near-equal numbers."""
    shifted = rows - rows.max(axis=1, keepdims=True).astype(np.float64)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
