"""The budget follows the clock: a stream waits for its next token about as long as it may."""

import pytest

from app.engine.pacing import (
    IDLE_STEP_S,
    MAX_BUDGET,
    MAX_STEP_RATIO,
    MIN_ALLOWED_S,
    MIN_BUSY_BUDGET,
    MIN_IDLE_BUDGET,
    Pacer,
)

ROWS = 7


def settle(
    token_s: float, decode_s: float, *, calm_s: float | None = None, steps: int = 60
) -> tuple[int, float]:
    """Budget and chunk seconds after some steps on a machine of that speed."""
    pacer, seconds = Pacer(), 0.0
    pacer.note_decode_only(ROWS, decode_s if calm_s is None else calm_s)
    for _ in range(steps):
        num_tokens = pacer.budget.busy
        seconds = 0.002 + token_s * num_tokens
        pacer.note_mixed(ROWS, 0, decode_s, num_tokens, seconds)
    return pacer.budget.busy, seconds


@pytest.mark.parametrize("token_s", [0.001, 0.002, 0.004])
@pytest.mark.parametrize("decode_s", [0.030, 0.040])
def test_a_step_comes_to_take_the_time_that_it_may(token_s, decode_s):
    budget, seconds = settle(token_s, decode_s)
    assert MIN_BUSY_BUDGET < budget < MAX_BUDGET, "at a limit this proves nothing"
    assert decode_s + seconds == pytest.approx(MAX_STEP_RATIO * decode_s, rel=0.15)


def test_the_yardstick_is_the_batch_that_the_prompts_will_have_joined():
    pacer = Pacer()
    pacer.note_decode_only(1, 0.010)
    pacer.note_decode_only(8, 0.040)
    for _ in range(60):
        num_tokens = pacer.budget.busy
        pacer.note_mixed(1, 7, 0.010, num_tokens, 0.002 * num_tokens)
    assert 0.010 + 0.002 * pacer.budget.busy == pytest.approx(MAX_STEP_RATIO * 0.040, rel=0.1)


def test_a_batch_that_was_never_seen_is_judged_by_the_most_similar_one():
    pacer = Pacer()
    pacer.note_decode_only(4, 0.030)
    for _ in range(60):
        num_tokens = pacer.budget.busy
        pacer.note_mixed(4, 12, 0.030, num_tokens, 0.002 * num_tokens)
    assert 0.030 + 0.002 * pacer.budget.busy == pytest.approx(MAX_STEP_RATIO * 0.060, rel=0.1)


def test_streams_whose_steps_have_grown_do_not_starve_a_prompt():
    assert settle(0.001, 0.2, calm_s=0.02)[1] == pytest.approx(MIN_ALLOWED_S, rel=0.1)


def test_decode_runs_that_grow_beside_a_prompt_leave_it_less():
    calm, grown = settle(0.001, 0.040)[1], settle(0.001, 0.052, calm_s=0.040)[1]
    assert calm == pytest.approx(0.040, rel=0.1)
    assert grown == pytest.approx(0.028, rel=0.1)


def test_a_slow_machine_still_feeds_and_a_fast_one_has_a_limit():
    assert settle(token_s=1.0, decode_s=0.01)[0] == MIN_BUSY_BUDGET
    assert settle(token_s=1e-7, decode_s=0.01)[0] == MAX_BUDGET


def test_one_short_run_at_most_doubles_the_budget():
    pacer = Pacer()
    before = pacer.budget.busy
    pacer.note_mixed(ROWS, 1, 1.0, before, 1e-6)
    assert pacer.budget.busy == 2 * before


def test_the_short_end_of_a_prompt_does_not_shrink_the_budget():
    pacer = Pacer()
    for _ in range(2):
        pacer.note_mixed(ROWS, 1, 1.0, pacer.budget.busy, 0.5)
    before = pacer.budget.busy
    pacer.note_mixed(ROWS, 1, 1.0, 3, 0.1)
    assert pacer.budget.busy == before


@pytest.mark.parametrize(("token_s", "budget"), [(0.0004, MAX_BUDGET), (0.0012, MIN_IDLE_BUDGET)])
def test_while_nothing_decodes_a_chunk_is_as_large_as_its_time_allows(token_s, budget):
    pacer = Pacer()
    for _ in range(5):
        fed = pacer.budget.idle
        pacer.note_prefill_only(fed, fed * token_s)
        pacer.note_prefill_only(3, 10.0)  # the end of a prompt, on a machine that was busy
    assert pacer.budget.idle == budget
    assert budget * token_s <= IDLE_STEP_S
