"""The budget follows the clock: a step's chunks take about as long as they may."""

import pytest

from app.engine.pacing import IDLE_BUDGET, MIN_BUSY_BUDGET, STALL_S, STALL_STEPS, Pacer


def settle(token_s: float, fixed_s: float, decode_s: float, steps: int = 60) -> tuple[int, float]:
    """Budget and chunk seconds after some steps on a machine of that speed."""
    pacer, seconds = Pacer(), 0.0
    for _ in range(steps):
        pacer.note_decode(decode_s)
        num_tokens = pacer.budget.busy
        seconds = fixed_s + token_s * num_tokens
        pacer.note_prefill(num_tokens, seconds)
    return pacer.budget.busy, seconds


@pytest.mark.parametrize("token_s", [0.0005, 0.001, 0.004])
@pytest.mark.parametrize("decode_s", [0.001, 0.040])
def test_chunks_come_to_take_the_time_that_they_may(token_s, decode_s):
    budget, seconds = settle(token_s, 0.002, decode_s)
    assert MIN_BUSY_BUDGET < budget < IDLE_BUDGET, "at a limit this proves nothing"
    assert seconds == pytest.approx(max(STALL_STEPS * decode_s, STALL_S), rel=0.15)


def test_a_slow_machine_still_feeds_and_a_fast_one_has_a_limit():
    assert settle(token_s=1.0, fixed_s=0.0, decode_s=0.01)[0] == MIN_BUSY_BUDGET
    assert settle(token_s=1e-7, fixed_s=0.0, decode_s=0.01)[0] == IDLE_BUDGET


def test_one_short_run_at_most_doubles_the_budget():
    pacer = Pacer()
    pacer.note_decode(1.0)
    before = pacer.budget.busy
    pacer.note_prefill(before, 1e-6)
    assert pacer.budget.busy == 2 * before


def test_the_short_end_of_a_prompt_does_not_shrink_the_budget():
    pacer = Pacer()
    pacer.note_decode(1.0)
    for _ in range(2):
        pacer.note_prefill(pacer.budget.busy, 1.0)
    before = pacer.budget.busy
    pacer.note_prefill(3, 0.1)
    assert pacer.budget.busy == before
