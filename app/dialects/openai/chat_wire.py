"""`POST /v1/chat/completions`: the answer, whole and as a stream."""

import time
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal
from uuid import uuid4

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.contract.generation import (
    Event,
    Finished,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from app.contract.sampling import FinishReason
from app.contract.whole import Whole
from app.dialects.openai.chunks import Chunks, UsageOf
from app.dialects.openai.schemas import FINGERPRINT, UsageAnswer
from app.errors import Error

# JSON has no infinity; this is what OpenAI writes for a token that can't be.
_LOWEST_LOGPROB: Final = -9999.0


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that could have come."""

    token: str
    logprob: float
    bytes: list[int]


class Logprob(TopLogprob, frozen=True):
    """A token, and those that were likeliest in its place."""

    top_logprobs: list[TopLogprob]

    @classmethod
    def of(cls, token: TokenLogprob) -> "Logprob":
        """Make one from the contract's record."""
        tops = [TopLogprob(top.text, finite(top.logprob), list(top.bytes)) for top in token.top]
        return cls(token.text, finite(token.logprob), list(token.bytes), tops)


class Logprobs(msgspec.Struct, frozen=True):
    """Logprobs of a choice's tokens."""

    content: list[Logprob]
    refusal: None = None

    @classmethod
    def of(cls, tokens: Sequence[TokenLogprob]) -> "Logprobs":
        """Make them from the contract's records."""
        return cls([Logprob.of(token) for token in tokens])


class Called(msgspec.Struct, frozen=True):
    """A function and its arguments, as JSON text."""

    name: str
    arguments: str


class Call(msgspec.Struct, frozen=True):
    """A tool call."""

    id: str
    type: Literal["function"]
    function: Called


class AnswerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The assistant's turn."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: Annotated[
        str | UnsetType, Meta(description="What the model thought before, if it does.")
    ] = UNSET
    tool_calls: list[Call] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, frozen=True):
    """One of the `n` answers."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: str

    @classmethod
    def of(cls, index: int, whole: Whole, *, logprobs: bool, reasoning: bool) -> "ChatChoice":
        """Make one from a whole generation.

        Args:
            index: its place in the answer.
            whole: all of it.
            reasoning: whether what the model thought is told.
            logprobs: whether they were asked for; a text without tokens then has an empty list.
        """
        calls = [Call(c.id, "function", Called(c.name, c.arguments)) for c in whole.tool_calls]
        message = AnswerMessage(
            content=None if calls and not whole.text else whole.text,
            reasoning_content=(whole.reasoning if reasoning else "") or UNSET,
            tool_calls=calls or UNSET,
        )
        reason = finish_reason(whole.finished, calls=bool(calls))
        return cls(index, message, Logprobs.of(whole.logprobs) if logprobs else None, reason)


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[ChatChoice]
    usage: UsageAnswer

    @classmethod
    def of(
        cls, model_id: str, wholes: Sequence[Whole], *, logprobs: bool, reasoning: bool
    ) -> "ChatAnswer":
        """Make one from whole generations, one per choice."""
        usages = {index: whole.finished.usage for index, whole in enumerate(wholes)}
        return cls(
            id=chat_id(),
            created=int(time.time()),
            model=model_id,
            choices=[
                ChatChoice.of(index, whole, logprobs=logprobs, reasoning=reasoning)
                for index, whole in enumerate(wholes)
            ],
            usage=UsageAnswer.of(usages, len(wholes)),
        )


class ChatChunks:
    """Frames the stream: for each choice its role, its pieces and its finish reason."""

    def __init__(
        self,
        model_id: str,
        n: int,
        *,
        include_usage: bool,
        usage_so_far: UsageOf | None = None,
        reasoning: bool = True,
    ) -> None:
        """Begin a stream.

        Args:
            model_id: the model that writes.
            n: choices.
            include_usage: whether a chunk at the end tells the usage.
            usage_so_far: what a choice has cost, for every chunk; None: they don't tell it.
            reasoning: whether what the model thinks is told.
        """
        kind = "chat.completion.chunk"
        self._chunks = Chunks(
            chat_id(),
            kind,
            model_id,
            n,
            include_usage=include_usage,
            usage_so_far=usage_so_far,
        )
        self._reasoning = reasoning
        self._begun: set[int] = set()
        self._called: set[int] = set()

    def take(self, index: int, event: Event) -> bytes:
        """Frame what happened to a choice."""
        begin = b"" if index in self._begun else self._begin(index, event)
        match event:
            case TextDelta(text, logprobs):
                told = Logprobs.of(logprobs) if logprobs else None
                return begin + self._frame(index, {"content": text}, told)
            case ReasoningDelta(text):
                told_of = self._reasoning
                return begin + (self._frame(index, {"reasoning_content": text}) if told_of else b"")
            case ToolCallDelta():
                self._called.add(index)
                return begin + self._frame(index, {"tool_calls": [_call_delta(event)]})
            case Finished(_, usage):
                self._chunks.note(index, usage)
                reason = finish_reason(event, calls=index in self._called)
                return begin + self._frame(index, {}, reason=reason)
        return begin

    def finish(self) -> bytes:
        """Frame the usage, if asked for, and the end."""
        return self._chunks.finish()

    def fail(self, error: Error) -> bytes:
        """Frame a failure, which is not the end."""
        return self._chunks.fail(error)

    def _begin(self, index: int, event: Event) -> bytes:
        self._begun.add(index)
        content = None if isinstance(event, ToolCallDelta) else ""
        return self._frame(index, {"role": "assistant", "content": content, "refusal": None})

    def _frame(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: Logprobs | None = None,
        reason: str | None = None,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._chunks.write(choice)


def chat_id() -> str:
    """Make an id for an answer."""
    return f"chatcmpl-{uuid4().hex}"


def finite(logprob: float) -> float:
    """Bound a logprob below: JSON has no infinity."""
    return max(logprob, _LOWEST_LOGPROB)


def finish_reason(finished: Finished, *, calls: bool) -> str:
    """Why a choice ended; calls that were cut off are not complete calls."""
    whole = finished.reason is FinishReason.STOP and not finished.call_cut
    return "tool_calls" if calls and whole else finished.reason.value


def _call_delta(event: ToolCallDelta) -> dict[str, Any]:
    if event.id is None:
        return {"index": event.index, "function": {"arguments": event.arguments}}
    function = {"name": event.name, "arguments": event.arguments}
    return {"index": event.index, "id": event.id, "type": "function", "function": function}
