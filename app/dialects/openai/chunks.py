"""What streams of chat completions and of completions have in common: chunks of choices."""

import time
from collections.abc import Callable
from typing import Any, Final

from app.contract.generation import Usage
from app.dialects.kit.framing import json_event
from app.dialects.openai.schemas import FINGERPRINT, ErrorAnswer, UsageAnswer
from app.dialects.openai.wire import detail
from app.errors import Error

UsageOf = Callable[[int], Usage]
"""Tokens that a choice has cost so far, by its index."""
DONE: Final = b"data: [DONE]\n\n"


class Chunks:
    """Writes chunks of one answer, and notes what each choice has cost."""

    def __init__(
        self,
        answer_id: str,
        kind: str,
        model_id: str,
        n: int,
        *,
        include_usage: bool,
        usage_so_far: UsageOf | None = None,
    ) -> None:
        """Begin a stream.

        Args:
            answer_id: on every chunk.
            kind: what a chunk is called.
            model_id: the model that writes.
            n: choices of a prompt.
            include_usage: whether a chunk at the end tells the usage.
            usage_so_far: what a choice has cost, for every chunk; None: they don't tell it.
        """
        self._chunk: dict[str, Any] = {
            "id": answer_id,
            "object": kind,
            "created": int(time.time()),
            "model": model_id,
            "system_fingerprint": FINGERPRINT,
        }
        self._usage_so_far = usage_so_far
        self._n = n
        self._usage: dict[str, Any] = {"usage": None} if include_usage else {}
        self._usages: dict[int, Usage] = {}

    def write(self, choice: dict[str, Any]) -> bytes:
        """Write a chunk about one choice."""
        usage = self._usage
        if self._usage_so_far is not None:
            usages = {0: self._usage_so_far(choice["index"])}
            usage = {"usage": UsageAnswer.of(usages, 1)}
        return json_event({**self._chunk, "choices": [choice], **usage})

    def note(self, index: int, usage: Usage) -> None:
        """Note what a choice has cost, now that it has ended."""
        self._usages[index] = usage

    def finish(self) -> bytes:
        """Write the usage, if asked for, and the end."""
        if not self._usage:
            return DONE
        usage = UsageAnswer.of(self._usages, self._n)
        return json_event({**self._chunk, "choices": [], "usage": usage}) + DONE

    def fail(self, error: Error) -> bytes:
        """Write a failure, which is not the end."""
        return json_event(ErrorAnswer(detail(error)))
