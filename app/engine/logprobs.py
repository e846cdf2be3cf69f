"""How likely the model held a token: the log-softmax of a row of its own logits.

Knows nothing of penalties, masks and temperatures: it is given logits that nobody changed.
"""

from collections.abc import Sequence

import numpy as np

from app.engine.sampler import largest
from app.engine.sequence import ScoredToken
from app.errors import EngineFailure
from app.runtime.decoder import FloatArray, IdArray


@np.errstate(over="ignore")  # the distance of two logits may be beyond float32: exp gives 0
def token_logprob(
    row: FloatArray, token_id: int, num_likeliest: int, others: Sequence[int] = ()
) -> ScoredToken:
    """Give the logprobs of one token and of the likeliest in its place.

    Args:
        row: float32 [V], left as it is.
        token_id: the token that came.
        num_likeliest: how many of the likeliest to name besides; 0: none.
        others: tokens to name after those, where they are not among them; each once.

    Raises:
        EngineFailure: the largest logit is not finite.
    """
    peak = row.max()  # a NaN anywhere shows here
    if not np.isfinite(peak):
        raise EngineFailure(f"the decoder's largest logit is {peak}")
    log_mass = float(peak) + float(np.log(np.exp(row - peak).sum(dtype=np.float64)))
    named = likeliest(row, num_likeliest).tolist()
    named += [other for other in others if other not in named]
    top = tuple((i, float(row[i]) - log_mass) for i in named)
    own = row[token_id]
    return ScoredToken(token_id, float(own) - log_mass, top, 1 + int(np.count_nonzero(row > own)))


def likeliest(row: FloatArray, count: int) -> IdArray:
    """Give the ids of the largest logits, int64 [≤ count]: largest first, equal ones by id."""
    if count == 0:
        return np.empty(0, np.int64)
    ids = largest(row, count)
    return ids[np.argsort(-row[ids], kind="stable")[:count]]
