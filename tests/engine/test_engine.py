"""The engine on a decoder with a closed form: every token is known beforehand."""

import itertools
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contract.sampling import FinishReason, SamplingParams
from app.engine.engine import Engine, Events
from app.engine.sequence import TokenEvent
from app.errors import EngineFailure
from tests.engine.driving import FixedPace, request, run, step, tokens
from tests.engine.scripted import (
    ScriptedConstraint,
    ScriptedDecoder,
    expected_tokens,
    fail_when,
    next_token,
)

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
    decoder = ScriptedDecoder(slots, can_copy_slots=movable)
    engine = Engine(decoder, FixedPace(busy=busy, idle=8))
    events: dict[int, list[TokenEvent]] = {i: [] for i in range(len(arrivals))}
    aborted = set()
    for now in range(400):
        for i, (at, prompt, count) in enumerate(arrivals):
            if at == now:
                engine.add(i, request(prompt, count))
        for i, at in aborts.items():
            if at == now and i < len(arrivals):
                engine.abort(i)
                aborted.add(i)
        for i, event in step(engine):
            assert not (i in aborted and arrivals[i][0] <= aborts[i]), "an aborted one speaks"
            events[i].append(event)
    assert engine.idle
    for i, (_, prompt, count) in enumerate(arrivals):
        want = expected_tokens(prompt, count, decoder.vocab_size)
        got = tokens(events[i])
        if i in aborted:
            assert got == want[: len(got)]
        else:
            assert got == want
            assert [e.finish_reason for e in events[i]] == [None] * (count - 1) + ["length"]


def test_each_decoder_run_hands_its_events_over_before_the_next_one_begins():
    handed_over: list[Events] = []
    runs_seen: list[int] = []
    decoder = ScriptedDecoder(slots=3, before_run=lambda _: runs_seen.append(len(handed_over)))
    engine = Engine(decoder, FixedPace(busy=3, idle=8))
    engine.add(0, request([1, 2], 3))
    engine.step(handed_over.append)
    engine.add(1, request([3], 3))
    engine.add(2, request([4], 3))
    engine.step(handed_over.append)
    assert runs_seen == [0, 1, 2, 3], "one prompt; then a decode run and two prompts"
    assert [[i for i, _ in events] for events in handed_over] == [[0], [0], [1], [2]]


def test_a_step_runs_to_its_end_whoever_listens():
    decoder = ScriptedDecoder()
    engine = Engine(decoder, FixedPace(busy=3, idle=3))
    engine.add(0, request([1, 2, 3, 4, 5], 1))
    for num_runs in (1, 2):
        engine.step(lambda _: None)
        assert len(decoder.steps) == num_runs
    assert engine.idle


def test_nothing_is_handed_over_where_a_run_brought_nothing():
    engine = Engine(ScriptedDecoder(), FixedPace(busy=3, idle=3))
    engine.add(0, request([1, 2, 3, 4, 5], 1))
    handed_over: list[Events] = []
    engine.step(handed_over.append)
    assert handed_over == []
    engine.step(handed_over.append)
    assert len(handed_over) == 1


def test_whoever_asks_hears_of_a_prompt_before_its_first_chunk_and_after_each():
    ticks = itertools.count()
    engine = Engine(ScriptedDecoder(), FixedPace(busy=3, idle=3), clock_s=lambda: next(ticks))
    engine.add(0, request([1, 2, 3, 4, 5, 6, 7, 8], 2, progress=True))
    engine.add(1, request([3, 4, 5], 2))
    events = run(engine)
    news = [event.prompt for event in events[0] if event.prompt is not None]
    assert [state.computed_tokens for state in news] == [0, 3, 6, 8]
    assert [state.cached_tokens for state in news] == [0, 0, 0, 0]
    times = [state.time_s for state in news]
    assert times[0] == 0 < times[1] < times[2] < times[3]
    assert [event.prompt for event in events[0][: len(news)]] == news, "before the first token"
    assert len(tokens(events[0])) == 2
    assert all(event.prompt is None for event in events[1]), "it didn't ask"


def test_decode_runs_stay_a_short_prefix_after_a_low_slot_is_free():
    decoder = ScriptedDecoder(slots=4)
    engine = Engine(decoder, FixedPace(busy=3, idle=8))
    for i, count in enumerate((2, 2, 2, 12)):
        engine.add(i, request([i], count))
    events = run(engine)
    assert decoder.steps[-1].token_ids.shape == (1, 1), "the survivor must have moved to slot 0"
    assert tokens(events[3]) == expected_tokens([3], 12, decoder.vocab_size)


def test_sequences_that_cannot_move_decode_past_the_gap():
    decoder = ScriptedDecoder(slots=4, can_copy_slots=False)
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
    step(engine)
    engine.add(1, request(list(range(20)), 2))
    events = run(engine)
    chunks = [int(s.num_new[0]) for s in decoder.steps if s.first_slot == 1]
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


def test_a_prompt_that_fills_the_slot_still_gets_one_token():
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


def test_a_failed_decode_run_fails_every_sequence_of_it_and_frees_their_slots():
    decoder = ScriptedDecoder(before_run=fail_when(lambda s: s.num_computed.max() == 4))
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


@pytest.mark.parametrize(
    ("prompt", "fields", "message"),
    [
        ([], {}, "the prompt has 0 tokens, expected 1 to 4"),
        ([1] * 5, {}, "the prompt has 5 tokens, expected 1 to 4"),
        ([1, 101], {}, "prompt_ids has token 101, the model's vocabulary is 0 to 100"),
        ([1], {"max_tokens": 0}, "max_tokens is 0, expected at least 1"),
        ([1], {"stop_ids": frozenset({5, 101})}, "stop_ids has token 101"),
        ([1], {"sampling": SamplingParams(logit_bias={-1: 1.0})}, "logit_bias has token -1"),
    ],
)
def test_a_request_that_the_decoder_can_t_run_is_refused_alone(prompt, fields, message):
    engine = Engine(ScriptedDecoder(capacity=4, vocab_size=101), FixedPace(busy=3, idle=8))
    engine.add(0, request([1], 3))
    with pytest.raises(EngineFailure, match=message):
        engine.add(1, request(prompt, **fields))
    events = run(engine)
    assert list(events) == [0]
    assert tokens(events[0]) == expected_tokens([1], 3, 101)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"sampling": SamplingParams(top_k="many")}, "sampling"),
        ({"prompt_logprobs": "two"}, "taking the prompt's logprobs"),
    ],
)
def test_a_bug_while_a_sequence_is_sampled_ends_it_alone_and_is_logged(fields, what, caplog):
    engine = Engine(ScriptedDecoder(), FixedPace(busy=3, idle=8))
    engine.add(0, request([1], 6))
    engine.add(1, request([2, 3], 6, **fields))
    events = run(engine)
    assert tokens(events[0]) == expected_tokens([1], 6, 101)
    [event] = events[1]
    assert event.finish_reason is FinishReason.ERROR
    assert isinstance(event.error, EngineFailure)
    assert str(event.error).startswith(f"{what} failed: TypeError(")
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert f"while={what!r}" in record.message
    assert record.exc_info[1] is event.error.__cause__
    engine.add(2, request([9], 3))
    assert tokens(run(engine)[2]) == expected_tokens([9], 3, 101)


def test_a_bug_while_a_request_is_queued_is_that_requests_failure(caplog):
    engine = Engine(ScriptedDecoder(), FixedPace(busy=3, idle=8))
    with pytest.raises(EngineFailure, match="queueing a request failed: TypeError"):
        engine.add(0, request([1], sampling=SamplingParams(seed="seven")))
    assert engine.idle
    assert "Traceback" in caplog.text
    engine.add(0, request([9], 3))
    assert tokens(run(engine)[0]) == expected_tokens([9], 3, 101)


def test_requests_that_use_nothing_new_get_the_tokens_that_they_always_got():
    """Recorded before logit bias, min-p, constraints and logprobs came into the engine."""
    recorded = {
        0: [53, 12, 97, 14, 26, 20, 9, 53, 11, 23, 70, 41],
        1: [52, 98, 14, 95, 33, 42, 82, 42, 53, 3, 75, 55],
        2: [50, 70, 35, 14, 45, 4, 92, 79, 14, 12, 69, 44],
        3: [8, 27, 85, 59, 8, 30, 48, 15, 69, 11, 40, 45],
        4: [69, 70, 51, 96, 9, 36, 19, 77, 92, 68, 33, 88],
    }
    kinds = [
        {"temperature": 0.7, "top_p": 0.9, "top_k": 80, "repetition_penalty": 1.15},
        {"temperature": 1.0},
        {"temperature": 1.3, "top_p": 0.8},
        {"temperature": 0.9, "top_k": 40},
        {"temperature": 0.0, "repetition_penalty": 1.3},
    ]
    engine = Engine(ScriptedDecoder(), FixedPace(busy=3, idle=8))
    for i, kind in enumerate(kinds):
        engine.add(i, request([i, 7, 3], 12, sampling=SamplingParams(seed=i, **kind)))
    assert {i: tokens(events) for i, events in run(engine).items()} == recorded


def test_what_a_request_gets_does_not_depend_on_what_its_neighbours_ask_for():
    asked = [
        {"sampling": SamplingParams(temperature=0.7, top_k=80, top_p=0.9, seed=1)},
        {"sampling": SamplingParams(temperature=1.3, min_p=0.2, seed=2)},
        {"sampling": SamplingParams(frequency_penalty=1.0, logit_bias={9: 3.0}, seed=3)},
        {"sampling": SamplingParams(presence_penalty=1.0, seed=4), "prompt_logprobs": 1},
        {"top_logprobs": 3, "stop_ids": frozenset(range(40)), "min_tokens": 8},
        {"constraint": None},
    ]

    def fields(kind: dict) -> dict:
        constrained = "constraint" in kind
        return {**kind, "constraint": ScriptedConstraint(*[range(30)] * 9)} if constrained else kind

    together = Engine(ScriptedDecoder(slots=6), FixedPace(busy=3, idle=8))
    for i, kind in enumerate(asked):
        together.add(i, request([i, 50, 60, 70], 8, **fields(kind)))
    events = run(together)
    for i, kind in enumerate(asked):
        alone = Engine(ScriptedDecoder(slots=1), FixedPace(busy=3, idle=64))
        alone.add(0, request([i, 50, 60, 70], 8, **fields(kind)))
        assert run(alone)[0] == events[i]


@pytest.mark.parametrize("min_tokens", [0, 1, 4])
def test_stop_ids_come_from_min_tokens_on_and_not_before(min_tokens):
    stop_ids = frozenset(range(95))
    engine = Engine(ScriptedDecoder(vocab_size=101), FixedPace(busy=3, idle=8))
    engine.add(0, request([5, 6], 20, stop_ids=stop_ids, min_tokens=min_tokens))
    events = run(engine)[0]
    *before, last = tokens(events)
    assert len(before) == min_tokens
    assert stop_ids.isdisjoint(before)
    assert last == next_token([5, 6, *before], 101), "only held-back tokens may be replaced"
    assert last in stop_ids
    assert events[-1].finish_reason is FinishReason.STOP
