"""Choose the next token of a sequence from its row of logits.

Order and meaning as in Transformers: logit bias, repetition penalty, presence and frequency
penalty (OpenAI's; Transformers has none), then what is impossible (the constraint, what the
request rules out, stop ids before `min_tokens`), temperature, top-k, top-p, min-p. The vocabulary
is never sorted: a threshold that provably keeps every survivor picks a few candidates first, and
only those are ordered. Each sequence draws from its own generator, so what it gets does not depend
on others.

Every finite value of a parameter gives a token: a logit that an addition or a penalty would carry
beyond float32 stops at its limits, and impossible tokens (-inf) stay impossible.

Knows one row at a time; when it is sampled and what comes of the token is the engine's.

Source: `GenerationMixin._get_logits_processor` in transformers/generation/utils.py for the order,
logits_process.py beside it for the meaning.
"""

import math

import numpy as np
import numpy.typing as npt

from app.contract.sampling import SamplingParams
from app.engine.constraint import restrict
from app.engine.sequence import Sequence, TokenCounts
from app.engine.vetoes import Vetoes
from app.errors import EngineFailure
from app.runtime.decoder import FloatArray, IdArray

BLOCK = 64
"""Logits whose maximum stands for them while candidates are picked: with V = 49152 that is 768
maxima, enough for any usual top-k, and one pass that the CPU vectorises."""
LOWEST = np.finfo(np.float32).min
"""The least logit of a token that is possible at all."""
HIGHEST = np.finfo(np.float32).max
LEAST_PENALTY = float(np.finfo(np.float32).smallest_subnormal)
"""As a divisor of float32: anything less is 0 there."""


def sample(row: FloatArray, sequence: Sequence) -> int:
    """Choose a token.

    Args:
        row: float32 [V]; changed in place.
        sequence: its generator advances, all else is left alone.

    Raises:
        EngineFailure: there is no finite logit to choose, or the constraint failed.
    """
    params = sequence.request.sampling
    adjust(row, sequence)
    best = int(row.argmax())
    peak = row[best]  # argmax stops at a NaN, so it shows here
    if not math.isfinite(peak):
        raise EngineFailure(f"the largest logit of the tokens that may come is {peak}")
    return best if params.greedy else draw(*distribution(row, params), sequence.rng)


@np.errstate(over="ignore", invalid="ignore")
def adjust(row: FloatArray, sequence: Sequence) -> None:
    """Apply in place what comes before the temperature; impossible tokens get -inf.

    Raises:
        EngineFailure: the constraint failed or allows nothing.
    """
    request = sequence.request
    params = request.sampling
    if sequence.bias is not None:
        ids, added = sequence.bias
        raised = row[ids]
        raised += added
        _put(row, ids, raised)
    if sequence.seen is not None:
        penalise(row, sequence.seen.ids, params.repetition_penalty)
    if sequence.generated is not None:
        discourage(row, sequence.generated, params.presence_penalty, params.frequency_penalty)
    if request.constraint is not None and sequence.mask is not None:
        restrict(row, request.constraint, sequence.mask)
    if request.vetoes is not None:
        leave_out(row, request.vetoes, sequence)
    if request.stop_ids and sequence.num_generated < request.min_tokens:
        hold_back(row, list(request.stop_ids))


def penalise(row: FloatArray, seen_ids: IdArray, penalty: float) -> None:
    """Make tokens that occurred less likely: positive logits ÷ penalty, negative × penalty."""
    penalty = min(max(penalty, LEAST_PENALTY), float(HIGHEST))
    seen = row[seen_ids]
    positive = seen > 0
    multiplied = seen * penalty
    seen /= penalty
    _put(row, seen_ids, np.where(positive, seen, multiplied))


def discourage(row: FloatArray, generated: TokenCounts, presence: float, frequency: float) -> None:
    """Make generated tokens less likely: by `presence`, and by `frequency` for each time.

    Source: OpenAI's API reference, "Frequency and presence penalties".
    """
    penalties = frequency * generated.counts
    penalties += presence
    logits = row[generated.ids]
    logits -= penalties
    _put(row, generated.ids, logits)


def leave_out(row: FloatArray, vetoes: Vetoes, sequence: Sequence) -> None:
    """Make tokens impossible that the request rules out, unless no other is possible."""
    if vetoes.allowed is not None:
        logits = row[vetoes.allowed]
        if logits.max() > -np.inf:
            row.fill(-np.inf)
            row[vetoes.allowed] = logits
    completing = vetoes.completing(sequence.token_ids, sequence.num_generated)
    if completing:
        hold_back(row, completing)


def hold_back(row: FloatArray, ids: list[int]) -> None:
    """Make tokens impossible, unless no other is possible: then they stay as they were."""
    logits = row[ids]
    row[ids] = -np.inf
    if row.max() == -np.inf:
        row[ids] = logits


@np.errstate(over="ignore")
def distribution(
    row: FloatArray, params: SamplingParams
) -> tuple[IdArray, npt.NDArray[np.float64]]:
    """The tokens that may be drawn and their weights, which need not add up to 1.

    Args:
        row: float32 [V], finite at its maximum, -inf where a token is impossible.
        params: not greedy.

    Returns:
        ids int64 [N] and weights float64 [N]; likeliest first where top-p is on.
    """
    if 0 < params.top_k < row.size:
        ids = largest(row, params.top_k)
        weights = _weights(row[ids], params.temperature)
        mass = params.top_p * float(weights.sum())
    else:
        weights = _weights(row, params.temperature)
        total = float(weights.sum())
        mass = params.top_p * total
        # A token lighter than (1 - p) / V can't be in the nucleus: all of them together weigh
        # less than 1 - p, so what remains still holds p.
        ids = np.flatnonzero(weights >= (1.0 - params.top_p) * total / row.size)
        weights = weights[ids]
    if params.top_p < 1.0:
        ids, weights = _nucleus(ids, weights, mass)
    if params.min_p > 0.0:
        kept = weights >= params.min_p  # the likeliest weighs 1
        ids, weights = ids[kept], weights[kept]
    return ids, weights


def largest(row: FloatArray, k: int) -> IdArray:
    """Ids of the k largest logits and of those that equal the least of them, ascending.

    Impossible tokens are never among them, even if fewer than k remain. The k-th largest of
    the block maxima is a lower bound of the k-th largest logit: k blocks hold a value at least
    that large. So only what reaches the bound is partitioned.
    """
    bound = LOWEST
    blocks = row.size // BLOCK
    if k <= blocks:
        # Strided blocks, so that the maximum runs over whole vectors.
        maxima = row[: blocks * BLOCK].reshape(BLOCK, blocks).max(axis=0)
        bound = max(bound, np.partition(maxima, blocks - k)[blocks - k])
    ids: IdArray = np.flatnonzero(row >= bound)
    if ids.size <= k:
        return ids
    logits = row[ids]
    least = np.float32(np.partition(logits, ids.size - k)[ids.size - k])
    return ids[logits >= least]


def draw(ids: IdArray, weights: npt.NDArray[np.float64], rng: np.random.Generator) -> int:
    """Draw one of `ids` in proportion to its weight, with one number from the generator."""
    edges = np.cumsum(weights)
    index = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    return int(ids[min(index, ids.size - 1)])


def _put(row: FloatArray, ids: IdArray, adjusted: FloatArray) -> None:
    """Write adjusted logits into a row; what was finite in it stays finite, the rest as it was."""
    if adjusted.size and not (adjusted.min() >= LOWEST and adjusted.max() <= HIGHEST):
        before = row[ids]
        adjusted = np.where(np.isfinite(before), np.clip(adjusted, LOWEST, HIGHEST), before)
    row[ids] = adjusted


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
