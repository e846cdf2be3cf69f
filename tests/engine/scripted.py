"""A decoder of integers whose next token has a closed form in everything its row was fed.

It checks each step against what its rows hold, so an engine that feeds a token twice, skips
one, or reads another owner's row gets caught or produces other tokens.
"""

from collections.abc import Callable

import numpy as np

from app.errors import EngineFailure
from app.runtime.decoder import FloatArray, StepInput


def next_token(fed: list[int], vocab_size: int) -> int:
    """The closed form: depends on every token and on its place."""
    return sum((place + 1) * (token + 7) for place, token in enumerate(fed)) % vocab_size


def expected_tokens(prompt: list[int], count: int, vocab_size: int) -> list[int]:
    """What a greedy request must get."""
    fed = list(prompt)
    for _ in range(count):
        fed.append(next_token(fed, vocab_size))
    return fed[len(prompt) :]


class ScriptedDecoder:
    """Rows are lists of tokens."""

    def __init__(
        self,
        slots: int = 4,
        capacity: int = 64,
        vocab_size: int = 101,
        *,
        movable_rows: bool = True,
        before_run: Callable[[StepInput], None] = lambda _: None,
    ) -> None:
        self.slots, self.capacity, self.vocab_size = slots, capacity, vocab_size
        self.movable_rows = movable_rows
        self.steps: list[StepInput] = []
        self.closed = False
        self._rows: list[list[int]] = [[] for _ in range(slots)]
        self._before_run = before_run

    def run(self, step: StepInput) -> FloatArray:
        self.steps.append(step)
        self._before_run(step)
        batch, width = step.token_ids.shape
        assert step.first_row + batch <= self.slots
        logits = np.full((batch, self.vocab_size), -1.0, np.float32)
        for i in range(batch):
            new, cached = int(step.num_new[i]), int(step.num_cached[i])
            assert 0 <= new <= width
            if new == 0:
                continue
            row = self._rows[step.first_row + i]
            assert cached <= len(row), f"row {i} holds {len(row)}, the engine believes {cached}"
            row[cached:] = step.token_ids[i, :new].tolist()
            assert len(row) <= self.capacity
            logits[i, next_token(row, self.vocab_size)] = 1.0
        return logits

    def copy_row(self, source: int, target: int, num_tokens: int) -> None:
        assert self.movable_rows
        self._rows[target] = self._rows[source][:num_tokens]
        self._rows[source] = []

    def close(self) -> None:
        self.closed = True


def fail_when(condition: Callable[[StepInput], bool]) -> Callable[[StepInput], None]:
    """A fault for `before_run`: the step raises as ONNX Runtime's wrapper would."""

    def check(step: StepInput) -> None:
        if condition(step):
            raise EngineFailure("injected fault")

    return check
