"""The engine on a decoder with a closed form: every token is known beforehand."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.engine import Engine
from app.engine.pacing import Pacer
from app.engine.scheduler import TokenBudget
from app.engine.sequence import EngineRequest, FinishReason, SamplingParams, TokenEvent
from tests.engine.scripted import ScriptedDecoder, expected_tokens, fail_when

GREEDY = SamplingParams(temperature=0.0)


class FixedPace(Pacer):
    """A pacer that no clock moves."""

    def __init__(self, busy: int, idle: int) -> None:
        super().__init__()
        self._fixed = TokenBudget(busy=busy, idle=idle)

    @property
    def budget(self) -> TokenBudget:
        return self._fixed


def request(prompt: list[int], max_tokens: int = 5, **fields) -> EngineRequest:
    return EngineRequest(prompt_ids=prompt, max_tokens=max_tokens, sampling=GREEDY, **fields)


def run(engine: Engine, steps: int = 1000) -> dict[int, list[TokenEvent]]:
    """Step until idle; events by request."""
    events: dict[int, list[TokenEvent]] = {}
    for _ in range(steps):
        if engine.idle:
            break
        for batch in engine.step():
            for request_id, event in batch:
                events.setdefault(request_id, []).append(event)
        engine.check()
    return events


def tokens(events: list[TokenEvent]) -> list[int]:
    return [event.token_id for event in events if event.token_id is not None]


prompts = st.lists(st.integers(0, 100), min_size=1, max_size=20)


@settings(deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(st.integers(0, 12), prompts, st.integers(1, 9)), min_size=1, max_size=12
    ),
    aborts=st.dictionaries(st.integers(0, 11), st.integers(0, 25)),
    slots=st.integers(1, 5),
    movable=st.booleans(),
    busy=st.integers(3, 6),
)
def test_whoever_else_runs_each_request_gets_its_own_tokens(arrivals, aborts, slots, movable, busy):
    decoder = ScriptedDecoder(slots, movable_rows=movable)
    engine = Engine(decoder, FixedPace(busy=busy, idle=8))
    events: dict[int, list[TokenEvent]] = {i: [] for i in range(len(arrivals))}
    aborted = set()
    for step in range(400):
        for i, (at, prompt, count) in enumerate(arrivals):
            if at == step:
                engine.add(i, request(prompt, count))
        for i, at in aborts.items():
            if at == step and i < len(arrivals):
                engine.abort(i)
                aborted.add(i)
        for batch in engine.step():
            for i, event in batch:
                assert not (i in aborted and arrivals[i][0] <= aborts[i]), "an aborted one speaks"
                events[i].append(event)
        engine.check()
    assert engine.idle
    for i, (_, prompt, count) in enumerate(arrivals):
        want = expected_tokens(prompt, count, decoder.vocab_size)
        got = tokens(events[i])
        if i in aborted:
            assert got == want[: len(got)]
        else:
            assert got == want
            assert [e.finish_reason for e in events[i]] == [None] * (count - 1) + ["length"]


def test_decode_runs_stay_a_short_prefix_after_a_low_row_ends():
    decoder = ScriptedDecoder(slots=4)
    engine = Engine(decoder, FixedPace(busy=3, idle=8))
    for i, count in enumerate((2, 2, 2, 12)):
        engine.add(i, request([i], count))
    events = run(engine)
    assert decoder.steps[-1].token_ids.shape == (1, 1), "the survivor must have moved to row 0"
    assert tokens(events[3]) == expected_tokens([3], 12, decoder.vocab_size)


def test_rows_that_cannot_move_decode_past_the_gap():
    decoder = ScriptedDecoder(slots=4, movable_rows=False)
    engine = Engine(decoder, FixedPace(busy=3, idle=8))
    for i, count in enumerate((2, 2, 2, 12)):
        engine.add(i, request([i], count))
    events = run(engine)
    assert decoder.steps[-1].num_new.tolist() == [0, 0, 0, 1]
    assert tokens(events[3]) == expected_tokens([3], 12, decoder.vocab_size)


def test_a_long_prompt_is_fed_in_small_chunks_while_others_decode():
    decoder = ScriptedDecoder(slots=2)
    engine = Engine(decoder, FixedPace(busy=3, idle=50))
    engine.add(0, request([1, 2], 30))
    for _ in engine.step():
        pass
    engine.add(1, request(list(range(20)), 2))
    events = run(engine)
    chunks = [int(s.num_new[0]) for s in decoder.steps if s.first_row == 1]
    assert chunks == [3] * 6 + [2]
    widths = [s.token_ids.shape[1] for s in decoder.steps]
    assert all(not (a > 1 and b > 1) for a, b in pairwise(widths[1:])), (
        "a decode run must lie between two chunks"
    )
    assert tokens(events[1]) == expected_tokens(list(range(20)), 2, decoder.vocab_size)


def test_stop_id_ends_with_stop_and_is_reported():
    decoder = ScriptedDecoder()
    want = expected_tokens([5, 6], 8, decoder.vocab_size)
    assert want[3] not in want[:3], "the stop id must be new or this proves nothing"
    engine = Engine(decoder, FixedPace(busy=3, idle=8))
    engine.add(0, request([5, 6], 8, stop_ids=frozenset({want[3]})))
    events = run(engine)[0]
    assert tokens(events) == want[:4]
    assert events[-1].finish_reason is FinishReason.STOP


def test_a_prompt_that_fills_the_row_still_gets_one_token():
    decoder = ScriptedDecoder(capacity=6)
    engine = Engine(decoder, FixedPace(busy=3, idle=8))
    engine.add(0, request([1] * 6, 5))
    engine.add(1, request([1] * 5, 5))
    events = run(engine)
    assert [len(tokens(events[i])) for i in (0, 1)] == [1, 2]
    assert events[0][-1].finish_reason is FinishReason.LENGTH


def test_a_failed_run_ends_its_sequences_and_no_others():
    decoder = ScriptedDecoder(before_run=fail_when(lambda s: s.token_ids.shape[1] == 4))
    engine = Engine(decoder, FixedPace(busy=3, idle=8))
    engine.add(0, request([1, 2], 6))
    engine.add(1, request([1, 2, 3, 4], 6))
    engine.add(2, request([3], 6))
    events = run(engine)
    assert [e.finish_reason for e in events[1]] == [FinishReason.ERROR]
    assert "injected fault" in str(events[1][0].error)
    for i, prompt in ((0, [1, 2]), (2, [3])):
        assert tokens(events[i]) == expected_tokens(prompt, 6, decoder.vocab_size)
    engine.add(3, request([9], 3))
    assert tokens(run(engine)[3]) == expected_tokens([9], 3, decoder.vocab_size)


def test_a_failed_decode_run_fails_every_row_of_it_and_frees_them():
    decoder = ScriptedDecoder(before_run=fail_when(lambda s: s.num_cached.max() == 4))
    engine = Engine(decoder, FixedPace(busy=3, idle=8))
    for i in range(3):
        engine.add(i, request([i, i], 10))
    events = run(engine)
    assert [events[i][-1].finish_reason for i in range(3)] == [FinishReason.ERROR] * 3
    assert engine.scheduler.running == []


def test_time_limit_ends_with_length_waiting_or_running():
    clock = iter(range(1000))
    engine = Engine(
        ScriptedDecoder(slots=1), FixedPace(busy=3, idle=8), clock_s=lambda: float(next(clock))
    )
    engine.add(0, request([1], 50, max_time_s=10.0))
    engine.add(1, request([1], 50, max_time_s=3.0))
    events = run(engine)
    assert 0 < len(tokens(events[0])) < 50
    assert events[0][-1] == TokenEvent(None, FinishReason.LENGTH)
    assert events[1] == [TokenEvent(None, FinishReason.LENGTH)]


def test_abort_of_a_waiting_request_leaves_the_queue_in_order():
    decoder = ScriptedDecoder(slots=1)
    engine = Engine(decoder, FixedPace(busy=3, idle=8))
    for i in range(3):
        engine.add(i, request([i], 2))
    engine.abort(1)
    engine.abort(1)
    events = run(engine)
    assert list(events) == [0, 2]


def test_a_row_without_a_finite_logit_fails_alone():
    decoder = ScriptedDecoder()
    plain_run = decoder.run

    def poisoned(step):
        logits = plain_run(step)
        if step.token_ids.shape == (2, 1):
            logits[1] = float("nan")
        return logits

    decoder.run = poisoned
    engine = Engine(decoder, FixedPace(busy=3, idle=8))
    engine.add(0, request([1], 4))
    engine.add(1, request([2], 4))
    events = run(engine)
    assert tokens(events[0]) == expected_tokens([1], 4, decoder.vocab_size)
    assert events[1][-1].finish_reason is FinishReason.ERROR


def test_an_empty_or_too_long_prompt_is_our_own_bug():
    engine = Engine(ScriptedDecoder(capacity=4), FixedPace(busy=3, idle=8))
    for prompt in ([], [1] * 5):
        with pytest.raises(AssertionError):
            engine.add(0, request(prompt))
