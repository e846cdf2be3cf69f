"""Logprobs of sampled and of prompt tokens, whatever else changes the choice of a token."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.contract.sampling import FinishReason, SamplingParams
from app.engine.engine import Engine
from app.engine.logprobs import token_logprob
from app.engine.sequence import ScoredToken
from app.errors import EngineFailure
from tests.engine.driving import FixedPace, request, run, step, tokens
from tests.engine.scripted import (
    ScriptedConstraint,
    ScriptedDecoder,
    expected_tokens,
    fail_when,
    next_logits,
)

V = ScriptedDecoder().vocab_size
PROMPT = [5, 90, 3, 3, 17, 64, 0, 100, 41, 8, 77]
# coarse values, so that ties are common
rows = hnp.arrays(
    np.float32, st.integers(1, 300), elements=st.integers(-40, 40).map(lambda x: x / 8)
)


def reference(row: np.ndarray, token_id: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """By a full sort, in float64."""
    exact = row.astype(np.float64)
    logprobs = exact - np.log(np.exp(exact).sum())
    ordered = sorted(range(row.size), key=lambda i: (-row[i], i))[:count]
    return float(logprobs[token_id]), [(i, float(logprobs[i])) for i in ordered]


def assert_matches(found: ScoredToken, row: np.ndarray, count: int) -> None:
    logprob, top = reference(row, found.token_id, count)
    assert abs(found.logprob - logprob) < 1e-5, (found.logprob, logprob)
    assert [i for i, _ in found.top] == [i for i, _ in top]
    np.testing.assert_allclose([x for _, x in found.top], [x for _, x in top], atol=1e-5)


def prompt_logprobs(busy: int, idle: int, *, others: int = 0) -> tuple[ScoredToken, ...]:
    """Of PROMPT, fed in such chunks beside so many others."""
    engine = Engine(ScriptedDecoder(slots=4), FixedPace(busy, idle))
    for i in range(others):
        engine.add(1 + i, request([i, i + 1], 20))
    if others:
        step(engine)
    engine.add(0, request(PROMPT, 3, prompt_logprobs=2))
    events = run(engine)
    assert tokens(events[0]) == expected_tokens(PROMPT, 3, V)
    assert [event.prompt_logprobs for event in events[0][1:]] == [()] * 2
    return events[0][0].prompt_logprobs


@given(row=rows, count=st.integers(0, 20), data=st.data())
def test_token_logprob_equals_a_full_sort(row, count, data):
    token_id = data.draw(st.integers(0, row.size - 1))
    before = row.copy()
    found = token_logprob(row, token_id, count)
    assert_matches(found, row, count)
    assert found.rank == 1 + sum(other > row[token_id] for other in row)
    np.testing.assert_array_equal(row, before)


@given(row=rows, count=st.integers(0, 5), data=st.data())
def test_tokens_that_were_named_are_told_once_each(row, count, data):
    ids = st.integers(0, row.size - 1)
    others = data.draw(st.lists(ids, unique=True, max_size=9))
    plain = token_logprob(row, 0, count)
    found = token_logprob(row, 0, count, others)
    assert found.top[: len(plain.top)] == plain.top
    added = [i for i, _ in found.top[len(plain.top) :]]
    assert added == [other for other in others if other not in dict(plain.top)]
    for token_id, logprob in found.top:
        assert logprob == token_logprob(row, token_id, 0).logprob


def test_large_logits_do_not_overflow():
    found = token_logprob(np.array([300.0, 299.0, -300.0], np.float32), 1, 3)
    assert found.logprob == pytest.approx(-np.log1p(np.e))
    assert found.top[-1] == (2, pytest.approx(-600.3132617))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_with_nan_or_infinity_has_no_logprobs(bad):
    with pytest.raises(EngineFailure, match=str(bad)):
        token_logprob(np.array([0.0, bad, 1.0], np.float32), 0, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sampling": SamplingParams(temperature=2.0, seed=1)},
        {"sampling": SamplingParams(temperature=0.0, repetition_penalty=2.0)},
        {"sampling": SamplingParams(temperature=0.0, presence_penalty=2.0)},
        {"sampling": SamplingParams(temperature=0.0, frequency_penalty=2.0)},
        {"sampling": SamplingParams(temperature=0.0, logit_bias={9: 100.0})},
        {"constraint": ScriptedConstraint(*[{4, 50}] * 7)},
        {"stop_ids": frozenset(range(50)), "min_tokens": 6},
    ],
)
def test_logprobs_are_the_models_own_whatever_changes_the_choice(fields):
    engine = Engine(ScriptedDecoder(), FixedPace(busy=3, idle=8))
    engine.add(0, request(PROMPT, 6, top_logprobs=3, **fields))
    events = run(engine)[0]
    got = tokens(events)
    assert len(got) == 6
    for place, event in enumerate(events):
        assert event.logprobs is not None
        assert event.logprobs.token_id == event.token_id
        assert_matches(event.logprobs, next_logits(PROMPT + got[:place], V), 3)


def test_top_logprobs_zero_is_the_chosen_token_alone_and_none_is_nothing():
    engine = Engine(ScriptedDecoder(), FixedPace(busy=3, idle=8))
    engine.add(0, request(PROMPT, 4, top_logprobs=0))
    engine.add(1, request(PROMPT, 4))
    events = run(engine)
    assert [event.logprobs.top for event in events[0]] == [()] * 4
    assert [event.logprobs for event in events[1]] == [None] * 4
    assert tokens(events[0]) == tokens(events[1])


def test_asking_for_logprobs_changes_no_token():
    sampling = SamplingParams(temperature=1.2, top_p=0.9, repetition_penalty=1.3, seed=4)
    engine = Engine(ScriptedDecoder(), FixedPace(busy=3, idle=8))
    engine.add(0, request(PROMPT, 20, sampling=sampling))
    engine.add(1, request(PROMPT, 20, sampling=sampling, top_logprobs=5, prompt_logprobs=5))
    events = run(engine)
    assert tokens(events[0]) == tokens(events[1])


def test_prompt_logprobs_are_of_each_token_after_those_before_it():
    found = prompt_logprobs(busy=3, idle=64)
    assert [one.token_id for one in found] == PROMPT[1:]
    for place, one in enumerate(found, 1):
        assert_matches(one, next_logits(PROMPT[:place], V), 2)


@given(busy=st.integers(3, 12), idle=st.integers(3, 12), others=st.integers(0, 3))
def test_prompt_logprobs_are_bitwise_the_same_wherever_the_prompt_is_cut(busy, idle, others):
    assert prompt_logprobs(busy, idle, others=others) == prompt_logprobs(3, 64)


def test_only_runs_of_requests_that_ask_give_all_logits():
    decoder = ScriptedDecoder()
    engine = Engine(decoder, FixedPace(busy=4, idle=64))
    engine.add(0, request(PROMPT, 4))
    engine.add(1, request(PROMPT, 4, prompt_logprobs=0))
    engine.add(2, request(PROMPT, 4, top_logprobs=5))
    run(engine)
    assert {s.first_slot for s in decoder.steps if s.all_logits} == {1}
    widths = [s.token_ids.shape[1] for s in decoder.steps if s.all_logits]
    assert sum(widths) == len(PROMPT), "decode steps want the last logits alone"


def test_a_prompt_of_one_token_has_no_prompt_logprobs():
    engine = Engine(ScriptedDecoder(), FixedPace(busy=3, idle=8))
    engine.add(0, request([7], 2, prompt_logprobs=3))
    events = run(engine)[0]
    assert tokens(events) == expected_tokens([7], 2, V)
    assert events[0].prompt_logprobs == ()


def test_prompt_logprobs_of_a_prompt_that_fills_the_slot_are_all_there():
    engine = Engine(ScriptedDecoder(capacity=len(PROMPT)), FixedPace(busy=3, idle=8))
    engine.add(0, request(PROMPT, 9, prompt_logprobs=0))
    (event,) = run(engine)[0]
    assert [one.token_id for one in event.prompt_logprobs] == PROMPT[1:]
    assert event.finish_reason is FinishReason.LENGTH


def test_a_prompt_that_fails_while_it_is_fed_ends_with_the_error_alone():
    decoder = ScriptedDecoder(before_run=fail_when(lambda s: s.num_computed.max() == 6))
    engine = Engine(decoder, FixedPace(busy=3, idle=6))
    engine.add(0, request(PROMPT, 9, prompt_logprobs=0))
    (event,) = run(engine)[0]
    assert event.finish_reason is FinishReason.ERROR
    assert event.prompt_logprobs == ()


def test_a_nan_among_a_prompts_logits_fails_the_request_that_asks_for_them():
    decoder = ScriptedDecoder()
    plain_run = decoder.run

    def poisoned(step):
        logits = plain_run(step)
        if logits.shape[1] > 1:
            logits[0, 1, 30] = float("nan")
        return logits

    decoder.run = poisoned
    engine = Engine(decoder, FixedPace(busy=3, idle=8))
    engine.add(0, request(PROMPT, 4, prompt_logprobs=0))
    engine.add(1, request(PROMPT, 4))
    events = run(engine)
    assert [event.finish_reason for event in events[0]] == [FinishReason.ERROR]
    assert tokens(events[1]) == expected_tokens(PROMPT, 4, V)


def test_the_scripted_logits_tell_places_apart():
    every = [tuple(next_logits(PROMPT[: n + 1], V)) for n in range(len(PROMPT))]
    assert all(a != b for a, b in pairwise(every)), "or the tests above prove little"
