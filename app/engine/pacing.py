"""How many prompt tokens a step may feed, learnt from how long steps take.

While sequences decode, a prompt chunk is time that they stand still. What a token of it costs
depends on the machine, the model and how much of the prompt is cached already, so the budget
follows the clock: it grows and shrinks until a step's chunks take as long as they may. Where a
prompt is cut changes nothing in the results (`scheduler.chunk_size`).
"""

import math
from typing import Final

from app.engine.scheduler import MIN_BUDGET, TokenBudget

IDLE_BUDGET: Final = 64
"""Prompt tokens a step while nothing decodes: larger chunks are no faster and make a request that
arrives meanwhile wait (bench/LOG.md, 2026-11-22)."""
MIN_BUSY_BUDGET: Final = MIN_BUDGET
"""A token costs twice as much here as in a large chunk, but one token more at the end of a long
prompt stops the streams for 4.0 of their steps instead of 3.5 (bench/LOG.md, 2026-11-24)."""
STEPS_A_TOKEN: Final = 2.0
"""Undisturbed decode steps that a stream may wait for its next token beside a prompt. They are
those of the batch that it will be in once the prompts that are being read have joined: while one
stream runs and seven prompts come, its own short steps are soon over anyway …"""
STALL_S: Final = 0.024
"""… and a step's chunks may take so many seconds in any case, or prompts would starve beside
streams whose steps have grown (both in bench/LOG.md)."""
SMOOTHING: Final = 0.2
"""Weight of the newest decode step in their mean."""


class Pacer:
    """Holds the budget for the next step."""

    def __init__(self) -> None:
        self._busy_budget = float(MIN_BUSY_BUDGET)
        self._calm_decode_s: dict[int, float] = {}
        """By number of rows: mean of decode runs in steps that fed no prompt."""

    @property
    def budget(self) -> TokenBudget:
        """For the next step."""
        return TokenBudget(busy=int(self._busy_budget), idle=IDLE_BUDGET)

    def note_calm_step(self, rows: int, decode_s: float) -> None:
        """A step decoded so many rows and did nothing else."""
        mean_s = self._calm_decode_s.setdefault(rows, decode_s)
        self._calm_decode_s[rows] = mean_s + SMOOTHING * (decode_s - mean_s)

    def note_step(
        self, rows: int, joining: int, decode_s: float, num_prefilled: int, prefill_s: float
    ) -> None:
        """A step decoded and fed prompts.

        Args:
            rows: that decoded.
            joining: prompts that are being read, in whole or in part.
            decode_s: seconds of the decode run.
            num_prefilled: prompt tokens that were fed.
            prefill_s: seconds that they took.
        """
        step_s = STEPS_A_TOKEN * self._calm_step_s(rows + joining, rows, decode_s)
        allowed_s = max(step_s - decode_s, STALL_S)
        # At most twice as many next time: one short run must not cause one very long one.
        factor = min(allowed_s / prefill_s, 2.0)
        if factor > 1.0 and num_prefilled < int(self._busy_budget):
            return  # the end of a prompt: that it was short says nothing about the rest
        self._busy_budget = min(max(factor * num_prefilled, MIN_BUSY_BUDGET), IDLE_BUDGET)

    def _calm_step_s(self, wanted: int, rows: int, decode_s: float) -> float:
        """Seconds of an undisturbed step of `wanted` rows, from the most similar one that was seen.

        A step of eight rows takes about three times one of one: so as the root of their number.
        """
        seen = self._calm_decode_s or {rows: decode_s}
        nearest = min(seen, key=lambda count: abs(count - wanted))
        return seen[nearest] * math.sqrt(wanted / nearest)
