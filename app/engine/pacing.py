"""How many prompt tokens a step may feed, learnt from how long steps take.

While sequences decode, a prompt chunk is time that they stand still. What a token of it costs
depends on the machine, the model and how much of the prompt is cached already, so the budget
follows the clock: it grows and shrinks until a step's chunks take as long as they may. Where a
prompt is cut changes nothing in the results (`scheduler.chunk_size`).
"""

from typing import Final

from app.engine.scheduler import TokenBudget

IDLE_BUDGET: Final = 128
"""Prompt tokens a step while nothing decodes: larger chunks are hardly faster and make a request
that arrives meanwhile wait (bench/LOG.md, 2026-11-22)."""
MIN_BUSY_BUDGET: Final = 6
"""Below this a token costs twice as much and prompts would starve."""
STALL_STEPS: Final = 1.5
"""Decode steps that the chunks of one step may take …"""
STALL_S: Final = 0.036
"""… or seconds, if that is more: nobody reads that fast, and while few sequences decode their
steps are too short for a chunk that is worth its overhead (bench/LOG.md, 2026-11-22)."""
SMOOTHING: Final = 0.2
"""Weight of the newest decode step in their mean."""


class Pacer:
    """Holds the budget for the next step."""

    def __init__(self) -> None:
        self._busy_budget = float(MIN_BUSY_BUDGET)
        self._decode_s: float | None = None

    @property
    def budget(self) -> TokenBudget:
        """For the next step."""
        return TokenBudget(busy=int(self._busy_budget), idle=IDLE_BUDGET)

    def note_decode(self, seconds: float) -> None:
        """A decode run took so long."""
        if self._decode_s is None:
            self._decode_s = seconds
        self._decode_s += SMOOTHING * (seconds - self._decode_s)

    def note_prefill(self, num_tokens: int, seconds: float) -> None:
        """The chunks of a step together took so long while sequences decoded."""
        if self._decode_s is None:
            return
        # At most twice as many next time: one short run must not cause one very long one.
        allowed_s = max(STALL_STEPS * self._decode_s, STALL_S)
        factor = min(allowed_s / seconds, 2.0)
        if factor > 1.0 and num_tokens < int(self._busy_budget):
            return  # the end of a prompt: that it was short says nothing about the rest
        self._busy_budget = min(max(factor * num_tokens, MIN_BUSY_BUDGET), IDLE_BUDGET)
