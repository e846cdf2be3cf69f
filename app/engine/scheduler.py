"""Decide what the next step runs. Made from counters alone: touches no arrays, runs nothing.

A step first decodes one token for every sequence whose prompt is in the cache, in one run over
the leading rows, then feeds prompt chunks under a token budget. While something decodes, the
budget is small, so that a long prompt never stalls the running streams for long.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from app.engine.kv_slots import KvSlots
from app.engine.prefix_cache import BlockKey, PrefixCache
from app.engine.sequence import Sequence
from app.runtime.decoder import BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class Move:
    """Copy a sequence's cache to a lower row and let it live there."""

    sequence: Sequence
    target: int


@dataclass(frozen=True, slots=True)
class Load:
    """Fill a sequence's row from token `start` on with kept blocks."""

    sequence: Sequence
    start: int
    blocks: list[int]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `num_tokens` of a sequence's prompt."""

    sequence: Sequence
    num_tokens: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step, in the order in which it is carried out."""

    moves: list[Move]
    loads: list[Load]
    decode: list[Sequence]
    prefill: list[Chunk]
    joining: int
    """Sequences with a row whose prompt is not in the cache yet."""


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

    A step of one token takes another attention kernel than one of several and rounds
    otherwise, so no prompt is cut such that a lone token is left. With that, its cache is
    bitwise the same wherever it is cut (bench/LOG.md, 2026-11-22).
    """
    size = min(remaining, budget)
    if size and remaining - size == 1:
        size -= 1
    return 0 if size == 1 < remaining else size


class Scheduler:
    """Sequences in order of arrival: waiting for a row, or running in one."""

    def __init__(self, slots: int, *, movable_rows: bool, pool_blocks: int = 0) -> None:
        self._slots = KvSlots(slots)
        self.prefixes = PrefixCache(pool_blocks)
        self._movable_rows = movable_rows
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Sequence] = {}
        """By request id, oldest first."""

    @property
    def num_waiting(self) -> int:
        """Sequences without a row."""
        return len(self._waiting)

    @property
    def running(self) -> list[Sequence]:
        """Sequences with a row, oldest first."""
        return list(self._running.values())

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._running)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; it is admitted in its turn."""
        self._waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is; its row is free at once."""
        if sequence.slot is None:
            self._waiting.remove(sequence)
        else:
            del self._running[sequence.request_id]
            self._slots.release(sequence.slot)
            sequence.slot = None

    def plan(self, budget: TokenBudget) -> StepPlan:
        """Admit what fits, close gaps between the decoding rows, and share out the budget.

        Kept blocks count as cached from here on: they are loaded before anything runs.
        """
        while self._waiting and self._slots.num_free:
            sequence = self._waiting.popleft()
            sequence.slot = self._slots.take()
            self._running[sequence.request_id] = sequence
        decode = [sequence for sequence in self._running.values() if not sequence.prefilling]
        moves = self._close_gaps(decode) if self._movable_rows else []
        loads = self._loads()
        chunks = self._chunks(budget.busy if decode else budget.idle)
        return StepPlan(moves, loads, decode, chunks, len(self._running) - len(decode))

    def check(self) -> None:
        """Assert the invariants of rows and counters."""
        owned = []
        for sequence in self._running.values():
            assert sequence.slot is not None, sequence.request_id
            assert sequence.num_cached < len(sequence.token_ids), sequence.request_id
            owned.append(sequence.slot)
        for sequence in self._waiting:
            assert sequence.slot is None, sequence.request_id
            assert sequence.num_cached == 0, sequence.request_id
        self._slots.check(owned)
        self.prefixes.check()

    def _loads(self) -> list[Load]:
        """Take what is kept of the prompts; blocks may have come since a prompt was admitted."""
        loads = []
        for sequence in self._running.values():
            first = _next_block(sequence)
            blocks = [] if first is None else self.prefixes.leading(sequence.block_keys[first:])
            if blocks:
                loads.append(Load(sequence, sequence.num_cached, blocks))
                num_tokens = len(blocks) * BLOCK_TOKENS
                sequence.num_cached += num_tokens
                sequence.num_reused += num_tokens
        return loads

    def _chunks(self, budget: int) -> list[Chunk]:
        """Share out the budget, oldest first.

        A prompt whose next block an older one is just computing waits for it.
        """
        chunks = []
        coming: set[BlockKey] = set()
        left = budget
        for sequence in self._running.values():
            if not sequence.prefilling:
                continue
            first = _next_block(sequence)
            if first is not None and sequence.block_keys[first] in coming:
                continue
            coming.update(sequence.block_keys[sequence.num_cached // BLOCK_TOKENS :])
            num_tokens = chunk_size(sequence.num_prompt - sequence.num_cached, left)
            if not num_tokens:
                break
            chunks.append(Chunk(sequence, num_tokens))
            left -= num_tokens
        return chunks

    def _close_gaps(self, decode: list[Sequence]) -> list[Move]:
        """Move the highest decoding rows into free lower ones: a decode run pays for its gaps."""
        moves = []
        for sequence in sorted(decode, key=lambda s: s.slot or 0, reverse=True):
            target = self._slots.lowest_free
            if target is None or sequence.slot is None or target > sequence.slot:
                break
            moves.append(Move(sequence, self._slots.take()))
            self._slots.release(sequence.slot)
        return moves


def _next_block(sequence: Sequence) -> int | None:
    """The block that a prompt needs next, if it stands at the beginning of one that may be kept."""
    block, inside = divmod(sequence.num_cached, BLOCK_TOKENS)
    return block if not inside and block < len(sequence.block_keys) else None
