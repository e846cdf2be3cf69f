"""What streams of chat completions and of completions have in common: chunks of choices."""

import time
from collections.abc import Mapping
from typing import Any, Final

from app.contract.usage import PromptProgress, Usage
from app.dialects.kit.framing import json_event
from app.dialects.openai.extras import Extras, ProgressAnswer, SoFar, fingerprint, timings_of
from app.dialects.openai.schemas import ErrorAnswer, UsageAnswer
from app.dialects.openai.wire import detail
from app.errors import Error

DONE: Final = b"data: [DONE]\n\n"


class Chunks:
    """Writes chunks of one answer, and notes what each choice has cost."""

    def __init__(self, answer_id: str, kind: str, so_far: SoFar, n: int, extras: Extras) -> None:
        """Begin a stream.

        Args:
            answer_id: on every chunk.
            kind: what a chunk is called.
            so_far: who writes, and what is known of the choices.
            n: choices of a prompt.
            extras: what is told of them.
        """
        self._chunk: dict[str, Any] = {
            "id": answer_id,
            "object": kind,
            "created": int(time.time()),
            "model": so_far.model_id,
            "system_fingerprint": fingerprint(so_far),
        }
        self._so_far = so_far
        self._extras = extras
        self._n = n
        self._usage: dict[str, Any] = {"usage": None} if extras.usage else {}
        self._usages: dict[int, Usage] = {}
        self._told: dict[int, int] = {}
        """How many tokens of a choice chunks have told; choices that have begun."""

    def write(
        self, choice: dict[str, Any], *, begins: bool = False, more: Mapping[str, Any] | None = None
    ) -> bytes:
        """Write a chunk about one choice.

        Args:
            choice: what it says.
            begins: whether it says nothing of the choice's tokens yet.
            more: what the chunk says beside the choice.
        """
        index, usage = choice["index"], self._usage
        if self._extras.continuous_usage:
            usage = {"usage": UsageAnswer.of({0: self._so_far.usage(index)}, 1)}
        if self._extras.token_ids and not begins:
            ids, told = self._so_far.token_ids(index), self._told.get(index, 0)
            self._told[index] = len(ids)
            choice = {**choice, "token_ids": ids[told:]}
        also = dict(more or {})
        if self._extras.timings and (timings := timings_of(self._so_far, index)) is not None:
            also["timings"] = timings
        return json_event({**self._chunk, "choices": [choice], **usage, **also})

    def progress(self, choice: dict[str, Any], progress: PromptProgress) -> bytes:
        """Write a chunk that says how far a choice's prompt has come, and nothing of the choice."""
        told = {"prompt_progress": ProgressAnswer.of(progress)}
        return self.write(choice, begins=True, more=told)

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
