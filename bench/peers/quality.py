"""How far a library's logits over the text are from torch's: the figures of export/validate.py.

Knows arrays only; without torch, so that the coordinator runs without the exporter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]

ROWS = 64
"""Positions at once: the vocabulary is wide."""


@dataclass(frozen=True)
class Quality:
    """Of one library against the reference."""

    mean_kl: float
    """Mean Kullback-Leibler divergence, nats a token."""
    top1_agreement: float
    perplexity: float


def quality(reference: Logits, logits: Logits, ids: Sequence[int]) -> Quality:
    """Compare logits [S, V] over a text of S tokens.

    Raises:
        ValueError: the shapes are not those of the text, or a logit is not a number.
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
    return Quality(
        mean_kl=kl / len(ids),
        top1_agreement=agree / len(ids),
        perplexity=float(np.exp(loss / (len(ids) - 1))),
    )


def log_softmax(rows: Logits) -> npt.NDArray[np.float64]:
    """Of each row, in float64: a divergence of 1e-5 is a difference of almost equal numbers."""
    shifted = rows - rows.max(axis=1, keepdims=True).astype(np.float64)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
