"""How many prompt tokens a step may feed, learnt from how long steps take.

A step decodes, then feeds prompt chunks. While it feeds them, the streams that decode stand
still, so chunks may take only so long. What a token costs depends on the machine, the model and
how much of the prompt is computed already, so the budget follows the clock: after each step it is
scaled by the time that the chunks were allowed over the time that they took. Where a prompt is
cut changes nothing in the results (`scheduler.chunk_size`).
"""

import math
from typing import Final

from app.engine.scheduler import MIN_BUDGET, TokenBudget

MIN_IDLE_BUDGET: Final = 64
"""Prompt tokens per step while nothing decodes, at least, and what they are a multiple of: blocks
of 8 bits are no faster in larger chunks (bench/LOG.md, 2026-11-22)."""
MAX_BUDGET: Final = 128
"""Products of integers are a fifth faster in chunks of so many than of 64; in larger ones attention
takes what they save (bench/LOG.md, 2026-11-26)."""
IDLE_STEP_S: Final = 0.1
"""Seconds that a step may take while nothing decodes: so long may a request that arrives wait."""
MIN_BUSY_BUDGET: Final = MIN_BUDGET
"""A token costs twice as much here as in a large chunk, but one token more at the end of a long
prompt stops the streams for 4.0 of their steps instead of 3.5 (bench/LOG.md, 2026-11-24)."""
MAX_STEP_RATIO: Final = 2.0
"""A step that decodes and feeds prompts may take this many times as long as a step that only
decodes would take for the batch to come: the sequences that decode now and those whose prompts
are being fed, together. Measured by the batch of now instead, a lone stream, whose steps are
short, would let seven new prompts in at a crawl (bench/LOG.md)."""
MIN_ALLOWED_S: Final = 0.024
"""Seconds that a step's chunks may take in any case: otherwise prompts would starve beside streams
whose decode runs have become slow (bench/LOG.md)."""
SMOOTHING: Final = 0.2
"""Weight of the newest measurement in the running means."""


class Pacer:
    """Holds the budget for the next step."""

    def __init__(self) -> None:
        self._busy_budget = float(MIN_BUSY_BUDGET)
        self._idle_budget = MAX_BUDGET
        self._decode_only_s: dict[int, float] = {}
        """Sequences in the batch → mean seconds of a step that did nothing but decode them."""

    @property
    def budget(self) -> TokenBudget:
        """Prompt tokens that the next step may feed."""
        return TokenBudget(busy=int(self._busy_budget), idle=self._idle_budget)

    def note_decode_only(self, num_decoding: int, decode_s: float) -> None:
        """Learn from a step that decoded and fed no prompt.

        Args:
            num_decoding: sequences that decoded.
            decode_s: seconds of the decode run.
        """
        mean_s = self._decode_only_s.setdefault(num_decoding, decode_s)
        self._decode_only_s[num_decoding] = mean_s + SMOOTHING * (decode_s - mean_s)

    def note_prefill_only(self, num_prefilled: int, prefill_s: float) -> None:
        """Learn from a step that fed prompts and decoded nothing.

        Args:
            num_prefilled: prompt tokens that were fed.
            prefill_s: seconds that they took.
        """
        if num_prefilled < self._idle_budget:
            return  # the end of a prompt says nothing about the rest
        wanted = num_prefilled * min(IDLE_STEP_S / max(prefill_s, 1e-9), 2.0)
        whole = int(wanted) // MIN_IDLE_BUDGET * MIN_IDLE_BUDGET
        self._idle_budget = min(max(whole, MIN_IDLE_BUDGET), MAX_BUDGET)

    def note_mixed(
        self,
        num_decoding: int,
        num_joining: int,
        decode_s: float,
        num_prefilled: int,
        prefill_s: float,
    ) -> None:
        """Learn from a step that decoded and fed prompts.

        Args:
            num_decoding: sequences that decoded.
            num_joining: sequences whose prompts are not fully computed yet.
            decode_s: seconds of the decode run.
            num_prefilled: prompt tokens that were fed.
            prefill_s: seconds that they took.
        """
        to_come_s = self._estimate(num_decoding + num_joining, num_decoding, decode_s)
        allowed_s = max(MAX_STEP_RATIO * to_come_s - decode_s, MIN_ALLOWED_S)
        # At most twice as many next time: one short run must not cause one very long one.
        # A coarse clock may say that no time has passed.
        factor = min(allowed_s / max(prefill_s, 1e-9), 2.0)
        if factor > 1.0 and num_prefilled < int(self._busy_budget):
            return  # the end of a prompt: that it was short says nothing about the rest
        self._busy_budget = min(max(factor * num_prefilled, MIN_BUSY_BUDGET), MAX_BUDGET)

    def _estimate(self, batch: int, num_decoding: int, decode_s: float) -> float:
        """Seconds of a step that only decodes, for a batch that may never have been measured.

        The measurement of the batch nearest in size is scaled by the root of the ratio of their
        sizes: a step of eight sequences takes about three times as long as a step of one. Before
        the first measurement the current step's decode run stands in, although prompts were fed
        beside it.
        """
        measured = self._decode_only_s or {num_decoding: decode_s}
        nearest = min(measured, key=lambda size: abs(size - batch))
        return measured[nearest] * math.sqrt(batch / nearest)
