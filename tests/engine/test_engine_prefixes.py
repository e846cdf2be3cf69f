"""Prompts that begin alike are computed once, and nobody's text shows it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.engine import Engine
from app.engine.prefix_cache import BLOCK_TOKENS
from tests.engine.driving import FixedPace, request, run, tokens
from tests.engine.scripted import ScriptedDecoder, expected_tokens, fail_when

V = 101
BEGINNING = [(7 * i) % V for i in range(3 * BLOCK_TOKENS)]


def engine_of(pool_blocks: int, slots: int = 4, **options) -> tuple[Engine, ScriptedDecoder]:
    decoder = ScriptedDecoder(slots, 128, V, pool_blocks=pool_blocks, **options)
    return Engine(decoder, FixedPace(busy=8, idle=20)), decoder


def fed(decoder: ScriptedDecoder) -> int:
    """Prompt tokens that were computed: decode steps are one token wide."""
    return sum(int(s.num_new.sum()) for s in decoder.steps if s.token_ids.shape[1] > 1)


def test_a_prompt_that_begins_like_an_earlier_one_computes_the_rest():
    engine, decoder = engine_of(pool_blocks=8)
    engine.add(0, request([*BEGINNING, 1, 2, 3]))
    first = run(engine)
    assert first[0][0].cached_tokens == 0
    assert fed(decoder) == len(BEGINNING) + 3
    decoder.steps.clear()
    prompt = [*BEGINNING, 9, 8]
    engine.add(1, request(prompt))
    events = run(engine)[1]
    assert tokens(events) == expected_tokens(prompt, 5, V)
    assert [event.cached_tokens for event in events] == [len(BEGINNING), 0, 0, 0, 0]
    assert fed(decoder) == 2


def test_four_choices_of_one_prompt_cost_one_prefill():
    engine, decoder = engine_of(pool_blocks=8)
    prompt = [*BEGINNING, 5, 6]
    for i in range(4):
        engine.add(i, request(prompt))
    events = run(engine)
    assert fed(decoder) == len(prompt) + 3 * 2
    for i in range(4):
        assert tokens(events[i]) == expected_tokens(prompt, 5, V)
    assert [events[i][0].cached_tokens for i in range(4)] == [0, *[len(BEGINNING)] * 3]


def test_progress_begins_with_what_was_cached():
    engine, _ = engine_of(pool_blocks=8)
    engine.add(0, request([*BEGINNING, 1, 2]))
    engine.add(1, request([*BEGINNING, 3, 4], progress=True))
    run(engine)
    engine.add(2, request([*BEGINNING, 5, 6], progress=True))
    for events in run(engine).values():
        news = [(e.prompt.computed_tokens, e.prompt.cached_tokens) for e in events if e.prompt]
        assert news == [(len(BEGINNING), len(BEGINNING)), (len(BEGINNING) + 2, len(BEGINNING))]


def test_tenants_share_nothing():
    engine, decoder = engine_of(pool_blocks=16)
    for i, tenant in enumerate(["ada", "bob", "ada"]):
        engine.add(i, request([*BEGINNING, 1, 2], tenant=tenant))
    events = run(engine)
    assert [events[i][0].cached_tokens for i in range(3)] == [0, 0, len(BEGINNING)]
    assert fed(decoder) == 2 * (len(BEGINNING) + 2) + 2


def test_prompt_logprobs_are_computed_and_not_taken_from_what_is_kept():
    engine, _ = engine_of(pool_blocks=8)
    engine.add(0, request([*BEGINNING, 1, 2]))
    run(engine)
    engine.add(1, request([*BEGINNING, 1, 2], prompt_logprobs=0))
    event = run(engine)[1][0]
    assert event.cached_tokens == 0
    assert len(event.prompt_logprobs) == len(BEGINNING) + 1


@pytest.mark.parametrize("abort_after", range(1, 6))
def test_who_waits_for_an_older_prompt_goes_on_when_that_is_dropped(abort_after):
    engine, _ = engine_of(pool_blocks=8)
    prompt = [*BEGINNING, 1, 2]
    engine.add(0, request(prompt))
    engine.add(1, request(prompt))
    early = run(engine, abort_after)
    engine.abort(0)
    events = [*early.get(1, []), *run(engine)[1]]
    assert tokens(events) == expected_tokens(prompt, 5, V)


def test_who_waits_for_an_older_prompt_goes_on_when_that_fails():
    failing = fail_when(lambda step: step.first_slot == 0 and int(step.num_computed[0]) == 20)
    engine, _ = engine_of(pool_blocks=8, before_run=failing)
    prompt = [*BEGINNING, 1, 2]
    engine.add(0, request(prompt))
    engine.add(1, request(prompt))
    events = run(engine)
    assert events[0][-1].error is not None
    assert tokens(events[1]) == expected_tokens(prompt, 5, V)


PROMPT = st.tuples(
    st.integers(0, 3 * BLOCK_TOKENS),
    st.lists(st.integers(0, V - 1), min_size=1, max_size=40),
    st.sampled_from(["", "ada"]),
    st.integers(0, 12),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(PROMPT, min_size=1, max_size=10), st.integers(0, 12), st.integers(1, 4))
def test_text_is_the_same_whatever_is_kept(prompts, pool_blocks, slots):
    engine, _ = engine_of(pool_blocks, slots)
    wanted, events = {}, {}
    for i, (shared, own, tenant, steps_before) in enumerate(prompts):
        for request_id, some in run(engine, steps_before).items():
            events.setdefault(request_id, []).extend(some)
        prompt = [*BEGINNING[:shared], *own]
        wanted[i] = expected_tokens(prompt, 5, V)
        engine.add(i, request(prompt, tenant=tenant))
    for request_id, some in run(engine).items():
        events.setdefault(request_id, []).extend(some)
    assert {i: tokens(found) for i, found in events.items()} == wanted


@pytest.mark.parametrize(
    ("first", "shorter", "longer"),
    [(2, 2, 2 + 2 * BLOCK_TOKENS), (BLOCK_TOKENS + 3, BLOCK_TOKENS + 2, 2 + 3 * BLOCK_TOKENS)],
)
def test_prompts_that_round_otherwise_share_nothing(first: int, shorter: int, longer: int):
    engine, decoder = engine_of(pool_blocks=8, min_first_chunk=first)
    short = BEGINNING[: BLOCK_TOKENS + 2]
    long = [*BEGINNING, 1, 2]
    wanted = [(short, BLOCK_TOKENS + 2), (short, shorter), (long, longer), (long, 2)]
    for request_id, (prompt, num_fed) in enumerate(wanted):
        decoder.steps.clear()
        engine.add(request_id, request(prompt))
        assert tokens(run(engine)[request_id]) == expected_tokens(prompt, 5, V)
        assert fed(decoder) == num_fed
