"""How many prompt tokens a step may feed, learnt from how long steps take.

While sequences decode, a prompt chunk is time that they stand still. What a token of it costs
depends on the machine, the model and how much of the prompt is cached already, so the budget
follows the clock: it grows and shrinks until a step's chunks take as long as they may. Where a
prompt is cut changes nothing in the results (`scheduler.chunk_size`).
"""

from typing import Final

from app.engine.scheduler import TokenBudget

IDLE_BUDGET: Final = 64
"""Prompt tokens a step while nothing decodes: larger chunks are no faster and make a request that
arrives meanwhile wait (bench/LOG.md, 2026-11-22)."""
MIN_BUSY_BUDGET: Final = 4
"""Below this a token costs twice as much and prompts would starve."""
STEPS_A_TOKEN: Final = 2.0
"""Undisturbed decode steps that a stream may wait for its next token beside a prompt …"""
TOKEN_S: Final = 0.052
"""… or so many seconds, if that is more: nobody reads that fast, and while few sequences decode
their steps are too short for a chunk that is worth its overhead …"""
STALL_S: Final = 0.024
"""… and a step's chunks may take so many in any case, or prompts would starve beside streams whose
steps have grown (all in bench/LOG.md, 2026-11-22)."""
SMOOTHING: Final = 0.2
"""Weight of the newest decode step in their mean."""


class Pacer:
    """Holds the budget for the next step."""

    def __init__(self) -> None:
        self._busy_budget = float(MIN_BUSY_BUDGET)
        self._calm_decode_s: float | None = None
        """Mean of decode runs in steps that fed no prompt; of the first run until there is one."""

    @property
    def budget(self) -> TokenBudget:
        """For the next step."""
        return TokenBudget(busy=int(self._busy_budget), idle=IDLE_BUDGET)

    def note_step(self, decode_s: float, num_prefilled: int, prefill_s: float) -> None:
        """A step decoded.

        Args:
            decode_s: seconds of its decode run.
            num_prefilled: prompt tokens that it fed besides; 0: none.
            prefill_s: seconds that they took.
        """
        if self._calm_decode_s is None:
            self._calm_decode_s = decode_s
        if not num_prefilled:
            self._calm_decode_s += SMOOTHING * (decode_s - self._calm_decode_s)
            return
        step_s = max(STEPS_A_TOKEN * self._calm_decode_s, TOKEN_S)
        allowed_s = max(step_s - decode_s, STALL_S)
        # At most twice as many next time: one short run must not cause one very long one.
        factor = min(allowed_s / prefill_s, 2.0)
        if factor > 1.0 and num_prefilled < int(self._busy_budget):
            return  # the end of a prompt: that it was short says nothing about the rest
        self._busy_budget = min(max(factor * num_prefilled, MIN_BUSY_BUDGET), IDLE_BUDGET)
