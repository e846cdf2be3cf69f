"""Whatever finite values the parameters have: a token that they allow, no exception, no warning."""

import math
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.contract.sampling import SamplingParams
from app.engine.engine import Engine
from app.engine.logprobs import token_logprob
from app.engine.sampler import adjust, sample
from app.engine.sequence import EngineRequest, Sequence
from app.errors import EngineFailure
from tests.engine.driving import FixedPace, request, run, tokens
from tests.engine.scripted import ScriptedConstraint, ScriptedDecoder, expected_tokens

V = 40
INF = float("inf")
LOWEST, HIGHEST = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
LEAST = 5e-324
"""The smallest positive float64."""

anything = st.floats(allow_nan=False, allow_infinity=False)
above_zero = st.floats(0.0, exclude_min=True, allow_infinity=False) | st.sampled_from(
    [LEAST, 1e-320, 1e-308, 1e-46, 1e-40, 1e-38, 1e38, 3.5e38, sys.float_info.max]
)
share = st.floats(0.0, 1.0, exclude_min=True) | st.sampled_from([LEAST, 1e-320, 1e-17, 1 - 1e-16])
biases = anything | st.sampled_from([-100.0, 100.0, 3e38, -3e38, 1e39, -1e39])
logits = (
    st.floats(-50, 50, width=32)
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.sampled_from([-INF, 0.0, -0.0, 1e-45, LOWEST, HIGHEST])
)
params = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.just(0.0) | above_zero,
        "top_p": share,
        "top_k": st.integers(0, V + 1) | st.sampled_from([10**30]),
        "min_p": st.just(0.0) | share,
        "repetition_penalty": above_zero,
        "presence_penalty": anything,
        "frequency_penalty": anything,
        "logit_bias": st.dictionaries(st.integers(0, V - 1), biases),
        "seed": st.integers(),
    },
)
some_ids = st.lists(st.integers(0, V - 1), max_size=9)


def sequence_of(
    fields: dict[str, object], prompt: list[int], generated: list[int], **of_request: object
) -> Sequence:
    asked = EngineRequest(
        prompt_ids=prompt, max_tokens=99, sampling=SamplingParams(**fields), **of_request
    )
    started = Sequence.start(0, asked, V, now_s=0.0)
    for token_id in generated:
        started.append(token_id)
    return started


def assert_allowed(token: int, row: np.ndarray, one: SamplingParams) -> None:
    """Check a token against its adjusted row, by each parameter's own words."""
    mine = float(row[token])
    assert mine > -INF
    peak = float(row.max())
    if one.greedy:
        assert mine == peak
        return
    if one.top_k > 0:
        assert int((row > mine).sum()) < one.top_k
    with np.errstate(over="ignore", under="ignore"):
        weights = np.exp((row.astype(np.float64) - peak) / one.temperature)
    weight = weights[token]
    assert weight > 0
    assert weight >= one.min_p
    kept = np.sort(weights)[::-1]
    if 0 < one.top_k < kept.size:
        kept = kept[kept >= kept[one.top_k - 1]]  # those that are as likely as the last one stay
    # the tokens that are likelier don't reach the nucleus's mass by themselves
    assert kept[kept > weight].sum() <= one.top_p * kept.sum() * (1 + 1e-9) or weight == 1.0


@hypothesis_settings(max_examples=500, deadline=None)
@given(
    row=hnp.arrays(np.float32, V, elements=logits),
    fields=params,
    prompt=some_ids.filter(len),
    generated=some_ids,
    allowed=st.none() | st.sets(st.integers(0, V - 1), min_size=1),
    stop_ids=st.frozensets(st.integers(0, V - 1), max_size=3),
    min_tokens=st.integers(0, 9),
)
@example(
    np.zeros(V, np.float32),
    {"logit_bias": {0: 1.0}, "top_k": 2, "top_p": 0.5},
    *([1], [], None, frozenset(), 0),
)
@example(np.zeros(V, np.float32), {"top_p": 1e-320}, [1], [], None, frozenset(), 0)
@example(np.zeros(V, np.float32), {"top_p": LEAST, "top_k": 3}, [1], [], None, frozenset(), 0)
@example(np.ones(V, np.float32), {"repetition_penalty": 1e-40}, [1, 2], [3], None, frozenset(), 0)
@example(np.ones(V, np.float32), {"repetition_penalty": 1e-320}, [1, 2], [], None, frozenset(), 0)
@example(np.ones(V, np.float32), {"frequency_penalty": 1e308}, [1], [3, 3], None, frozenset(), 0)
@example(np.ones(V, np.float32), {"seed": -(2**200)}, [1], [], None, frozenset(), 0)
def test_every_finite_parameter_gives_a_token_that_it_allows(  # noqa: PLR0917 # as @example
    row, fields, prompt, generated, allowed, stop_ids, min_tokens
):
    def one() -> Sequence:
        constraint = None if allowed is None else ScriptedConstraint(allowed)
        return sequence_of(
            fields,
            prompt,
            generated,
            stop_ids=stop_ids,
            min_tokens=min_tokens,
            constraint=constraint,
        )

    adjusted = row.copy()
    adjust(adjusted, one())
    possible = set(range(V)) if allowed is None else allowed
    possible = {i for i in possible if row[i] > -INF}
    if len(generated) < min_tokens:
        possible = possible - stop_ids or possible
    assert set(np.flatnonzero(adjusted > -INF)) == possible
    assert adjusted.max() <= HIGHEST
    if not possible:
        with pytest.raises(EngineFailure, match="is -inf"):
            sample(row.copy(), one())
        return
    token = sample(row.copy(), one())
    assert_allowed(token, adjusted, SamplingParams(**fields))
    scored = token_logprob(row, token, 3)
    assert scored.logprob <= 1e-6


@pytest.mark.parametrize("bias", [3e38, 1e300])
def test_an_overflowing_bias_makes_its_token_certain_and_its_negative_a_last_resort(bias):
    row = np.full(V, 3e38, np.float32)
    raised = sequence_of({"logit_bias": {7: bias}, "temperature": 1.0}, [1], [])
    assert {sample(row.copy(), raised) for _ in range(20)} == {7}
    lowered = sequence_of({"logit_bias": dict.fromkeys(range(1, V), -bias)}, [1], [])
    assert sample(row.copy(), lowered) == 0
    every = sequence_of({"logit_bias": dict.fromkeys(range(V), -bias)}, [1], [])
    assert 0 <= sample(row.copy(), every) < V


def test_a_bias_of_every_token_changes_no_choice():
    rng = np.random.default_rng(3)
    row = (rng.integers(-16, 16, V) / 8).astype(np.float32)  # exact with the bias too
    plain = sequence_of({"seed": 5}, [1], [])
    biased = sequence_of({"seed": 5, "logit_bias": dict.fromkeys(range(V), -100.0)}, [1], [])
    drawn = [[sample(row.copy(), one) for _ in range(50)] for one in (plain, biased)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 5, "a choice must be left or this proves nothing"


@pytest.mark.parametrize("bad", [float("nan"), INF])
@pytest.mark.parametrize(
    "fields",
    [{"logit_bias": {7: -3e38}}, {"repetition_penalty": 1e-40}, {"frequency_penalty": 1e308}],
)
def test_no_parameter_hides_a_row_with_nan_or_infinity(fields, bad):
    row = np.zeros(V, np.float32)
    row[7] = bad
    with pytest.raises(EngineFailure, match=str(bad)):
        sample(row, sequence_of(fields, [7], [7]))


SEEDS = {"zero": 0, "-1": -1, "-2^64": -(2**64), "2^64": 2**64, "10^400": 10**400}


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS)
def test_a_seed_of_any_size_gives_the_same_tokens_again(seed):
    row = np.zeros(V, np.float32)
    drawn = [
        [sample(row.copy(), one) for _ in range(30)]
        for one in (sequence_of({"seed": s}, [1], []) for s in (seed, seed, seed + 1))
    ]
    # 30 draws over 40 tokens: equal by chance less than once in 10^48
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "fields",
    [{"top_p": 1e-320}, {"top_p": LEAST, "top_k": 9}, {"repetition_penalty": 1e-40}, {"seed": -1}],
)
def test_an_extreme_request_gets_its_tokens_and_its_neighbour_too(fields):
    engine = Engine(ScriptedDecoder(), FixedPace(busy=3, idle=8))
    engine.add(0, request([5, 6], 5))
    engine.add(1, request([5, 6], 5, sampling=SamplingParams(**fields)))
    events = run(engine)
    assert tokens(events[0]) == expected_tokens([5, 6], 5, 101)
    assert len(tokens(events[1])) == 5
    assert events[1][-1].error is None


@pytest.mark.parametrize("limit_s", [LEAST, 0.0, -1.0, 1e308, math.inf])
def test_a_time_limit_of_any_size_ends_its_own_sequence_at_most(limit_s):
    engine = Engine(ScriptedDecoder(), FixedPace(busy=3, idle=8))
    engine.add(0, request([5, 6], 5))
    engine.add(1, request([5, 6], 5, max_time_s=limit_s))
    events = run(engine)
    assert tokens(events[0]) == expected_tokens([5, 6], 5, 101)
    assert len(tokens(events[1])) == (5 if limit_s > 1 else 0)
    assert events[1][-1].finish_reason == "length"
