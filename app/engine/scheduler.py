"""Decide who holds a slot and what the next step runs. Touches no arrays, runs nothing.

A step first decodes one token for every sequence whose prompt is computed, in one run over the
leading slots, then feeds prompt chunks under a token budget. While something decodes, the budget
is small, so that a long prompt never stalls the running streams for long.
"""

from dataclasses import dataclass
from typing import Final

from app.engine.fair_queue import FairQueue
from app.engine.kv_slots import KvSlots
from app.engine.prefix_cache import BlockKey, PrefixCache
from app.engine.sequence import Sequence
from app.runtime.decoder import BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class Move:
    """A sequence has moved to a lower slot: copy what the old one holds."""

    source: int
    target: int
    num_tokens: int
    """Tokens that the old slot holds."""


@dataclass(frozen=True, slots=True)
class Load:
    """Blocks that are kept and that a sequence's prompt needs next."""

    sequence: Sequence
    blocks: list[int]
    """Their places in the pool, in order."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `num_tokens` of a sequence's prompt."""

    sequence: Sequence
    num_tokens: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step, in the order in which it is carried out."""

    decode: list[Sequence]
    prefill: list[Chunk]
    num_joining: int
    """Sequences with a slot whose prompt is not fully computed yet."""


MIN_BUDGET: Final = 3
"""The least budget with which every prompt comes to its end; see `chunk_size`."""


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Prompt tokens that one step may feed."""

    busy: int
    """While other sequences decode."""
    idle: int
    """While none does."""

    def __post_init__(self) -> None:
        assert min(self.busy, self.idle) >= MIN_BUDGET, self


def chunk_size(remaining: int, budget: int) -> int:
    """How many of a prompt's remaining tokens to feed under a budget; 0: none fits.

    A step of one token takes a different attention kernel from one of several and rounds
    differently, so no prompt is cut such that a lone token is left. With that, its cache is
    bitwise the same wherever it is cut (bench/LOG.md, 2026-11-22).
    """
    size = min(remaining, budget)
    if size and remaining - size == 1:
        size -= 1
    return 0 if size == 1 < remaining else size


class Scheduler:
    """Sequences that wait for a slot, by whose turn it is, or run in one, by when they got it.

    It alone writes `Sequence.slot`, in `admit` and `remove`. Each step is `admit`, then `loads`,
    then `plan`; the caller carries out what each returns before it calls the next.
    """

    def __init__(
        self,
        slots: int,
        *,
        can_copy_slots: bool,
        pool_blocks: int = 0,
        min_first_chunk: int = 0,
    ) -> None:
        """Start empty.

        Args:
            slots: sequences that run at once.
            can_copy_slots: whether sequences may move.
            pool_blocks: blocks of prompts that are kept.
            min_first_chunk: tokens that the first step of a longer prompt reaches, see `Decoder`.
        """
        self._min_first_chunk = min_first_chunk
        self._slots = KvSlots(slots)
        self.prefixes = PrefixCache(pool_blocks)
        self._can_copy_slots = can_copy_slots
        self._waiting = FairQueue()
        self._running: dict[int, Sequence] = {}
        """By request id, in the order of admission."""

    @property
    def num_waiting(self) -> int:
        """Sequences without a slot."""
        return len(self._waiting)

    @property
    def running(self) -> list[Sequence]:
        """Sequences with a slot, in the order of admission."""
        return list(self._running.values())

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._running)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; it is admitted when it is its client's turn."""
        self._waiting.add(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is; its slot is free at once."""
        if sequence.slot is None:
            self._waiting.remove(sequence)
        else:
            del self._running[sequence.request_id]
            self._slots.release(sequence.slot)
            sequence.slot = None

    def admit(self) -> list[Move]:
        """Give free slots to those who wait, then move decoding sequences into the gaps below.

        Returns:
            Moves, to be carried out before anything runs.
        """
        while self._waiting and self._slots.num_free:
            sequence = self._waiting.take()
            sequence.slot = self._slots.take()
            self._running[sequence.request_id] = sequence
        return self._close_gaps() if self._can_copy_slots else []

    def loads(self) -> list[Load]:
        """Look up what is kept of the prompts; those blocks count as used just now.

        Blocks may have come since a prompt was admitted, so every step looks again.
        """
        loads = []
        for sequence in self._running.values():
            first = _next_block(sequence)
            blocks = [] if first is None else self.prefixes.leading(sequence.block_keys[first:])
            if blocks:
                loads.append(Load(sequence, blocks))
        return loads

    def plan(self, budget: TokenBudget) -> StepPlan:
        """Say what the step runs under a budget. Changes nothing."""
        decode = self._decoding()
        chunks = self._chunks(budget.busy if decode else budget.idle)
        return StepPlan(decode, chunks, len(self._running) - len(decode))

    def check(self) -> None:
        """Assert the invariants of slots and counters."""
        owned = []
        for sequence in self._running.values():
            assert sequence.slot is not None, sequence.request_id
            assert sequence.num_computed < len(sequence.token_ids), sequence.request_id
            owned.append(sequence.slot)
        for sequence in self._waiting:
            assert sequence.slot is None, sequence.request_id
            assert sequence.num_computed == 0, sequence.request_id
        self._slots.check(owned)
        self.prefixes.check()

    def _chunks(self, budget: int) -> list[Chunk]:
        """Share out the budget in the order of admission.

        A prompt waits while an earlier one is computing the block that it needs next. One that must
        begin with more than is left waits for a step that it opens, and may exceed that budget.
        """
        chunks: list[Chunk] = []
        coming: set[BlockKey] = set()
        left = budget
        for sequence in self._running.values():
            if not sequence.prefilling:
                continue
            first = _next_block(sequence)
            if first is not None and sequence.block_keys[first] in coming:
                continue
            coming.update(sequence.block_keys[sequence.num_computed // BLOCK_TOKENS :])
            at_least = self._least(sequence)
            if at_least > left and chunks:
                break
            remaining = sequence.num_prompt - sequence.num_computed
            num_tokens = chunk_size(remaining, max(left, at_least))
            if not num_tokens:
                break
            chunks.append(Chunk(sequence, num_tokens))
            left = max(left - num_tokens, 0)
        return chunks

    def _least(self, sequence: Sequence) -> int:
        """Tokens that a prompt's next chunk must have; 0: any number."""
        if sequence.num_prompt < self._min_first_chunk:
            return 0
        least = self._min_first_chunk - sequence.num_computed
        # no lone token may be left after it
        return least + (sequence.num_prompt == self._min_first_chunk + 1) if least > 0 else 0

    def _decoding(self) -> list[Sequence]:
        return [sequence for sequence in self._running.values() if not sequence.prefilling]

    def _close_gaps(self) -> list[Move]:
        """Move the highest decoding sequences into lower slots: a decode run pays for its gaps."""
        moves: list[Move] = []
        if self._slots.lowest_free in (None, len(self._running)):
            return moves  # the slots in use are a prefix: there is no gap
        for sequence in sorted(self._decoding(), key=lambda s: s.slot or 0, reverse=True):
            source, target = sequence.slot, self._slots.lowest_free
            if target is None or source is None or target > source:
                break
            moves.append(Move(source, self._slots.take(), sequence.num_computed))
            self._slots.release(source)
            sequence.slot = target
        return moves


def _next_block(sequence: Sequence) -> int | None:
    """The index of the block that a prompt needs next, if exactly those before it are computed."""
    block, inside = divmod(sequence.num_computed, BLOCK_TOKENS)
    return block if not inside and block < len(sequence.block_keys) else None
