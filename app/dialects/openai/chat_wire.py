"""`POST /v1/chat/completions`: the answer, whole and as a stream."""

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple
from uuid import uuid4

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.contract.generation import Event, Finished, ReasoningDelta, TextDelta, ToolCallDelta
from app.contract.sampling import FinishReason
from app.contract.tokens import TokenLogprob
from app.contract.usage import PromptProgress
from app.contract.whole import Whole
from app.dialects.openai.chunks import Chunks
from app.dialects.openai.extras import (
    Extras,
    PromptFigures,
    SoFar,
    TimingsAnswer,
    fingerprint,
    finite,
    named,
    prompt_figures,
    timings_of,
)
from app.dialects.openai.schemas import UsageAnswer
from app.errors import Error


class TopLogprob(msgspec.Struct, frozen=True):
    """A token that could have come."""

    token: str
    logprob: float
    bytes: list[int]


class Logprob(TopLogprob, frozen=True):
    """A token, and those that were likeliest in its place."""

    top_logprobs: list[TopLogprob]

    @classmethod
    def of(cls, token: TokenLogprob, *, as_ids: bool = False) -> "Logprob":
        """Make one from the contract's record; tokens are named by their text, or by their ids."""
        tops = [
            TopLogprob(named(top, as_id=as_ids), finite(top.logprob), list(top.bytes))
            for top in token.top
        ]
        return cls(named(token, as_id=as_ids), finite(token.logprob), list(token.bytes), tops)


class Logprobs(msgspec.Struct, frozen=True):
    """Logprobs of a choice's tokens."""

    content: list[Logprob]
    refusal: None = None

    @classmethod
    def of(cls, tokens: Sequence[TokenLogprob], *, as_ids: bool = False) -> "Logprobs":
        """Make them from the contract's records."""
        return cls([Logprob.of(token, as_ids=as_ids) for token in tokens])


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


class Shown(NamedTuple):
    """What a whole answer tells of each choice."""

    logprobs: bool
    reasoning: bool


class ChatChoice(msgspec.Struct, frozen=True):
    """One of the `n` answers."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: str
    token_ids: Annotated[
        list[int] | UnsetType, Meta(description="Every token of it, with return_token_ids.")
    ] = UNSET

    @classmethod
    def of(
        cls, index: int, whole: Whole, so_far: SoFar, extras: Extras, asked: "Shown"
    ) -> "ChatChoice":
        """Make one from a whole generation."""
        calls = [Call(c.id, "function", Called(c.name, c.arguments)) for c in whole.tool_calls]
        message = AnswerMessage(
            content=None if calls and not whole.text else whole.text,
            reasoning_content=(whole.reasoning if asked.reasoning else "") or UNSET,
            tool_calls=calls or UNSET,
        )
        reason = finish_reason(whole.finished, calls=bool(calls))
        # a text without tokens has an empty list
        told = Logprobs.of(whole.logprobs, as_ids=extras.tokens_as_ids) if asked.logprobs else None
        ids = list(so_far.token_ids(index)) if extras.token_ids else UNSET
        return cls(index, message, told, reason, ids)


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageAnswer
    timings: Annotated[
        TimingsAnswer | UnsetType, Meta(description="The first choice's, with timings_per_token.")
    ] = UNSET
    prompt_token_ids: Annotated[
        list[int] | UnsetType, Meta(description="With return_token_ids.")
    ] = UNSET
    prompt_logprobs: Annotated[
        PromptFigures | UnsetType, Meta(description="By token id; null for the first.")
    ] = UNSET

    @classmethod
    def of(
        cls, so_far: SoFar, wholes: Sequence[Whole], extras: Extras, asked: "Shown"
    ) -> "ChatAnswer":
        """Make one from whole generations, one per choice."""
        usages = {index: whole.finished.usage for index, whole in enumerate(wholes)}
        prompt = wholes[0].prompt_logprobs
        return cls(
            id=chat_id(),
            created=int(time.time()),
            model=so_far.model_id,
            system_fingerprint=fingerprint(so_far),
            timings=(timings_of(so_far, 0) if extras.timings else None) or UNSET,
            choices=[
                ChatChoice.of(index, whole, so_far, extras, asked)
                for index, whole in enumerate(wholes)
            ],
            usage=UsageAnswer.of(usages, len(wholes)),
            prompt_token_ids=list(so_far.prompt_ids(0)) if extras.token_ids else UNSET,
            prompt_logprobs=(
                UNSET
                if extras.prompt_logprobs is None or prompt is None
                else prompt_figures(prompt, extras.prompt_logprobs)
            ),
        )


class ChatChunks:
    """Frames the stream: for each choice its role, its pieces and its finish reason."""

    def __init__(self, so_far: SoFar, n: int, extras: Extras, *, reasoning: bool) -> None:
        """Begin a stream.

        Args:
            so_far: who writes, and what is known of the choices.
            n: choices.
            extras: what else is told.
            reasoning: whether what the model thinks is told.
        """
        self._so_far = so_far
        self._extras = extras
        self._chunks = Chunks(chat_id(), "chat.completion.chunk", so_far, n, self._extras)
        self._reasoning = reasoning
        self._begun: set[int] = set()
        self._called: set[int] = set()

    def take(self, index: int, event: Event) -> bytes:
        """Frame what happened to a choice."""
        begin = b"" if index in self._begun else self._begin(index, event)
        match event:
            case PromptProgress():
                # the role stands once before them all: clients that add up deltas would repeat it
                return begin + self._chunks.progress(_choice(index, {}), event)
            case TextDelta(text, logprobs):
                as_ids = self._extras.tokens_as_ids
                told = Logprobs.of(logprobs, as_ids=as_ids) if logprobs else None
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
        first = self._extras.token_ids and not self._begun
        more = {"prompt_token_ids": self._so_far.prompt_ids(index)} if first else {}
        self._begun.add(index)
        content = None if isinstance(event, ToolCallDelta) else ""
        delta = {"role": "assistant", "content": content, "refusal": None}
        return self._chunks.write(_choice(index, delta), begins=True, more=more)

    def _frame(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: Logprobs | None = None,
        reason: str | None = None,
    ) -> bytes:
        return self._chunks.write(_choice(index, delta, logprobs, reason))


def chat_id() -> str:
    """Make an id for an answer."""
    return f"chatcmpl-{uuid4().hex}"


def finish_reason(finished: Finished, *, calls: bool) -> str:
    """Why a choice ended; calls that were cut off are not complete calls."""
    whole = finished.reason is FinishReason.STOP and not finished.call_cut
    return "tool_calls" if calls and whole else finished.reason.value


def _choice(
    index: int,
    delta: dict[str, Any],
    logprobs: Logprobs | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _call_delta(event: ToolCallDelta) -> dict[str, Any]:
    if event.id is None:
        return {"index": event.index, "function": {"arguments": event.arguments}}
    function = {"name": event.name, "arguments": event.arguments}
    return {"index": event.index, "id": event.id, "type": "function", "function": function}
