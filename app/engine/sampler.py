"""Choose the next token of each row from its logits.

Order and meaning as in Transformers: repetition penalty, temperature, top-k, top-p. The
vocabulary is never sorted: a threshold that provably keeps every survivor picks a few
candidates first, and only those are ordered. Each row draws from its own generator, so what
a row gets does not depend on its neighbours.

Source: the logits processors in transformers/generation/logits_process.py.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from app.engine.sequence import SamplingParams, Sequence
from app.errors import EngineFailure
from app.runtime.decoder import FloatArray, IdArray

BLOCK = 64
"""Logits whose maximum stands for them while candidates are picked: with V = 49152 that is 768
maxima, enough for any usual top-k, and one pass that the CPU vectorises."""


def sample(logits: FloatArray, rows: Mapping[int, Sequence]) -> dict[int, int | EngineFailure]:
    """Choose a token for some rows.

    Args:
        logits: float32 [B, V]; changed in place by the penalty.
        rows: row → its sequence; the generators advance, the tokens are left alone.

    Returns:
        row → token id, or an EngineFailure where the row has no finite logit to choose.
    """
    for row, sequence in rows.items():
        if sequence.seen is not None:
            penalise(logits[row], sequence.seen.ids, sequence.request.sampling.repetition_penalty)
    best = logits.argmax(axis=1)
    chosen: dict[int, int | EngineFailure] = {}
    for row, sequence in rows.items():
        params = sequence.request.sampling
        peak = logits[row, best[row]]  # argmax stops at a NaN, so it shows here
        if not np.isfinite(peak):
            chosen[row] = EngineFailure(f"the decoder's largest logit is {peak}")
        elif params.greedy:
            chosen[row] = int(best[row])
        else:
            chosen[row] = draw(*distribution(logits[row], params), sequence.rng)
    return chosen


def penalise(row: FloatArray, seen_ids: IdArray, penalty: float) -> None:
    """Make tokens that occurred less likely: positive logits ÷ penalty, negative × penalty."""
    seen = row[seen_ids]
    row[seen_ids] = np.where(seen > 0, seen / penalty, seen * penalty)


def distribution(
    row: FloatArray, params: SamplingParams
) -> tuple[IdArray, npt.NDArray[np.float64]]:
    """The tokens that may be drawn and their weights, which need not add up to 1.

    Args:
        row: float32 [V], finite at its maximum; the penalty is already applied.
        params: not greedy.

    Returns:
        ids int64 [N] and weights float64 [N]; likeliest first where top-k or top-p is on.
    """
    if 0 < params.top_k < row.size:
        ids = np.flatnonzero(row >= kth_largest(row, params.top_k))
        weights = _weights(row[ids], params.temperature)
        mass = params.top_p * float(weights.sum())
    else:
        weights = _weights(row, params.temperature)
        mass = params.top_p * float(weights.sum())
        # A token lighter than (1 - p) / V can't be in the nucleus: all of them together weigh
        # less than 1 - p, so what remains still holds p.
        ids = np.flatnonzero(weights >= (1.0 - params.top_p) / params.top_p * mass / row.size)
        weights = weights[ids]
    return (ids, weights) if params.top_p == 1.0 else _nucleus(ids, weights, mass)


def kth_largest(row: FloatArray, k: int) -> np.float32:
    """The k-th largest value of a row.

    The k-th largest of the block maxima is a lower bound of it: k blocks hold a value at
    least that large. So only what reaches the bound is searched.
    """
    blocks = row.size // BLOCK
    if k > blocks:
        return np.float32(np.partition(row, row.size - k)[row.size - k])
    # Strided blocks, so that the maximum runs over whole vectors.
    maxima = row[: blocks * BLOCK].reshape(BLOCK, blocks).max(axis=0)
    bound = np.partition(maxima, blocks - k)[blocks - k]
    reaching = row[row >= bound]
    return np.float32(np.partition(reaching, reaching.size - k)[reaching.size - k])


def draw(ids: IdArray, weights: npt.NDArray[np.float64], rng: np.random.Generator) -> int:
    """Draw one of `ids` in proportion to its weight, with one number from the generator."""
    edges = np.cumsum(weights)
    index = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    return int(ids[min(index, ids.size - 1)])


def _weights(logits: FloatArray, temperature: float) -> npt.NDArray[np.float64]:
    """Softmax without its division; float64, so that long sums keep the small tokens."""
    scaled = logits.astype(np.float64)
    scaled -= scaled.max()
    scaled /= temperature
    weights: npt.NDArray[np.float64] = np.exp(scaled, out=scaled)
    return weights


def _nucleus(
    ids: IdArray, weights: npt.NDArray[np.float64], mass: float
) -> tuple[IdArray, npt.NDArray[np.float64]]:
    """Likeliest first, and only the fewest of them that together reach `mass`; at least one."""
    order = np.argsort(-weights, kind="stable")
    ids, weights = ids[order], weights[order]
    before = np.cumsum(weights) - weights
    kept = max(1, int(np.searchsorted(before, mass, side="left")))
    return ids[:kept], weights[:kept]
