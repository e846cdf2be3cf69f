"""A decoder of integers whose next token has a closed form in everything its slot was fed.

It checks each step against what its slots hold, so an engine that feeds a token twice, skips
one, or reads another owner's slot gets caught or produces other tokens. Beside it a constraint
that follows a list.
"""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from app.engine.sequence import Constraint
from app.errors import EngineFailure
from app.runtime.decoder import BLOCK_TOKENS, CountArray, Decoder, FloatArray, StepInput


def next_token(fed: list[int], vocab_size: int) -> int:
    """The closed form: depends on every token and on its place."""
    return sum((place + 1) * (token + 7) for place, token in enumerate(fed)) % vocab_size


def next_logits(fed: list[int], vocab_size: int) -> FloatArray:
    """Logits [V], all different: `next_token` has the largest by 1, the others lie in (-2, -1]."""
    best = next_token(fed, vocab_size)
    logits = -1 - (np.arange(vocab_size) * (2 * len(fed) + 1) + best) % vocab_size / vocab_size
    logits[best] = 0.0
    return logits.astype(np.float32)


def expected_tokens(prompt: list[int], count: int, vocab_size: int) -> list[int]:
    """What a greedy request must get."""
    fed = list(prompt)
    for _ in range(count):
        fed.append(next_token(fed, vocab_size))
    return fed[len(prompt) :]


class ScriptedDecoder:
    """Slots are lists of tokens."""

    def __init__(
        self,
        slots: int = 4,
        capacity: int = 64,
        vocab_size: int = 101,
        *,
        can_copy_slots: bool = True,
        pool_blocks: int = 0,
        min_first_chunk: int = 2,
        before_run: Callable[[StepInput], object] = lambda _: None,
    ) -> None:
        self.slots, self.capacity, self.vocab_size = slots, capacity, vocab_size
        self.can_copy_slots = can_copy_slots
        self.pool_blocks = pool_blocks
        self.min_first_chunk = min_first_chunk
        self._pool: dict[int, list[int]] = {}
        self.steps: list[StepInput] = []
        self.closed = False
        self._held: list[list[int]] = [[] for _ in range(slots)]
        self._before_run = before_run

    def run(self, step: StepInput) -> FloatArray:
        self.steps.append(step)
        self._before_run(step)
        batch, width = step.token_ids.shape
        assert step.first_slot + batch <= self.slots
        logits = np.zeros((batch, width if step.all_logits else 1, self.vocab_size), np.float32)
        for i in range(batch):
            new, computed = int(step.num_new[i]), int(step.num_computed[i])
            assert 0 <= new <= width
            if new == 0:
                continue
            held = self._held[step.first_slot + i]
            assert computed <= len(held), f"row {i}: {len(held)} held, {computed} believed"
            held[computed:] = step.token_ids[i, :new].tolist()
            assert len(held) <= self.capacity
            wanted = range(new) if step.all_logits else [new - 1]
            for place, last in enumerate(wanted):
                logits[i, place] = next_logits(held[: computed + last + 1], self.vocab_size)
        return logits

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        assert self.can_copy_slots
        self._held[target] = self._held[source][:num_tokens]
        self._held[source] = []

    def save_block(self, slot: int, start: int, block: int) -> None:
        assert 0 <= block < self.pool_blocks
        self._pool[block] = self._held[slot][start : start + BLOCK_TOKENS]
        assert len(self._pool[block]) == BLOCK_TOKENS

    def load_blocks(self, blocks: Sequence[int], slot: int, start: int) -> None:
        assert start <= len(self._held[slot])
        loaded = [token for block in blocks for token in self._pool[block]]
        self._held[slot][start:] = loaded

    def close(self) -> None:
        self.closed = True


class ScriptedConstraint:
    """Allows one set of tokens after the other, refuses others, and has ended after the last."""

    def __init__(self, *allowed: Collection[int]) -> None:
        self.accepted: list[int] = []
        self.masks: list[int] = []
        """The identity of each buffer that was to be filled."""
        self._allowed = allowed

    def fill_mask(self, mask: CountArray) -> None:
        self.masks.append(id(mask))
        words = [0] * mask.size
        for token_id in self._allowed[len(self.accepted)]:
            words[token_id // 32] |= 1 << token_id % 32
        mask[:] = np.array(words, np.uint32).view(np.int32)

    def accept(self, token_id: int) -> None:
        if token_id not in self._allowed[len(self.accepted)]:
            raise EngineFailure(f"token {token_id} is refused")
        self.accepted.append(token_id)

    @property
    def ended(self) -> bool:
        return len(self.accepted) == len(self._allowed)


def fail_when(condition: Callable[[StepInput], bool]) -> Callable[[StepInput], None]:
    """A fault for `before_run`: the step raises as ONNX Runtime's wrapper would."""

    def check(step: StepInput) -> None:
        if condition(step):
            raise EngineFailure("injected fault")

    return check


if TYPE_CHECKING:  # what the engine asks for, held by mypy
    _decoder: Decoder = ScriptedDecoder()
    _constraint: Constraint = ScriptedConstraint()
