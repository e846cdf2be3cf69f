"""`POST /v1/messages`: the answer, whole and as a stream.

The answer is built by the machine that streams it, so the two can't differ.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal
from uuid import uuid4

import msgspec

from app.contract.generation import (
    Event,
    Finished,
    Generation,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from app.contract.sampling import FinishReason
from app.contract.usage import Usage
from app.dialects.anthropic.conversation import told_id
from app.dialects.anthropic.wire import error_event
from app.dialects.kit.framing import json_event
from app.errors import Error

PING: Final = {"type": "ping"}
SIGNATURE: Final = "unsigned"
"""What stands where Anthropic signs a thought: here nobody checks one that comes back."""


class CacheCreation(msgspec.Struct, frozen=True):
    """Tokens that were cached because the client said so: none, the server caches by itself."""

    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class ThinkingTokens(msgspec.Struct, frozen=True):
    """Of the answer's tokens."""

    thinking_tokens: int


class UsageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that a request cost; the prompt's are the sum of the three kinds of input tokens."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: ThinkingTokens
    cache_creation: CacheCreation = CacheCreation()
    service_tier: Literal["standard"] = "standard"

    @classmethod
    def of(cls, usage: Usage) -> "UsageAnswer":
        """Tell what the prefix cache had apart from what was computed."""
        return cls(
            input_tokens=usage.prompt_tokens - usage.cached_tokens,
            cache_read_input_tokens=usage.cached_tokens,
            output_tokens=usage.completion_tokens,
            output_tokens_details=ThinkingTokens(usage.reasoning_tokens),
        )


class TextBlock(msgspec.Struct, frozen=True, tag="text"):
    """A piece of the answer that is text."""

    text: str


class ThinkingBlock(msgspec.Struct, frozen=True, tag="thinking"):
    """What the model thought before its answer."""

    thinking: str
    signature: str


class ToolUseBlock(msgspec.Struct, frozen=True, tag="tool_use"):
    """A tool call."""

    id: str
    name: str
    input: dict[str, Any]


AnswerBlock = TextBlock | ThinkingBlock | ToolUseBlock
StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]


class MessageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[AnswerBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: UsageAnswer


class Answering:
    """Builds the answer to one request, an event of the stream after the other."""

    def __init__(
        self, generation: Generation, max_tokens: int, *, hides_thinking: bool = False
    ) -> None:
        """Begin.

        Args:
            generation: what is told of: its model and its tokens.
            max_tokens: those that the client allowed.
            hides_thinking: tell only that something was thought.
        """
        self._hides_thinking = hides_thinking
        self._generation = generation
        self._max_tokens = max_tokens
        self._begun = False
        self._open: AnswerBlock | None = None
        """The block that is being written, as it began."""
        self._pieces: list[str] = []
        """What came of it."""
        self.message = MessageAnswer(
            id=f"msg_{uuid4().hex}",
            model=generation.model_id,
            content=[],
            stop_reason=None,
            stop_sequence=None,
            usage=UsageAnswer.of(generation.usage),
        )

    def begin(self) -> Iterator[dict[str, Any]]:
        """Yield the stream's beginning, once."""
        if not self._begun:
            self._begun = True
            usage = msgspec.structs.replace(
                self._generation.usage, completion_tokens=0, reasoning_tokens=0
            )
            began = msgspec.structs.replace(self.message, usage=UsageAnswer.of(usage), content=[])
            yield {"type": "message_start", "message": began}

    def take(self, event: Event) -> Iterator[dict[str, Any]]:
        """Yield the events of the stream that an event of the generation makes."""
        yield from self.begin()
        match event:
            case TextDelta(text) if text:
                if not isinstance(self._open, TextBlock):
                    yield from self._start(TextBlock(""))
                yield self._delta({"type": "text_delta", "text": text}, text)
            case ReasoningDelta(text) if text:
                if not isinstance(self._open, ThinkingBlock):
                    yield from self._start(ThinkingBlock("", ""))
                if not self._hides_thinking:
                    yield self._delta({"type": "thinking_delta", "thinking": text}, text)
            case ToolCallDelta():
                if event.id is not None:
                    yield from self._start(ToolUseBlock(told_id(event.id), event.name or "", {}))
                if event.arguments:
                    delta = {"type": "input_json_delta", "partial_json": event.arguments}
                    yield self._delta(delta, event.arguments)
            case Finished():
                yield from self._finish(event)

    def _start(self, block: AnswerBlock) -> Iterator[dict[str, Any]]:
        yield from self._stop()
        self._open = block
        index = len(self.message.content)
        yield {"type": "content_block_start", "index": index, "content_block": block}
        if index == 0:
            yield PING

    def _delta(self, delta: dict[str, str], piece: str) -> dict[str, Any]:
        self._pieces.append(piece)
        index = len(self.message.content)
        return {"type": "content_block_delta", "index": index, "delta": delta}

    def _stop(self) -> Iterator[dict[str, Any]]:
        if self._open is None:
            return
        index, text = len(self.message.content), "".join(self._pieces)
        whole: AnswerBlock
        match self._open:
            case TextBlock():
                whole = TextBlock(text)
            case ThinkingBlock():
                whole = ThinkingBlock(text, SIGNATURE)
                yield self._delta({"type": "signature_delta", "signature": SIGNATURE}, "")
            case ToolUseBlock():
                whole = msgspec.structs.replace(self._open, input=_arguments(text))
        self.message.content.append(whole)
        self._open = None
        self._pieces.clear()
        yield {"type": "content_block_stop", "index": index}

    def _finish(self, finished: Finished) -> Iterator[dict[str, Any]]:
        yield from self._stop()
        usage = UsageAnswer.of(finished.usage)
        reason, sequence = self._reason(finished), finished.stop_string
        self.message = msgspec.structs.replace(
            self.message, stop_reason=reason, stop_sequence=sequence, usage=usage
        )
        told = {
            "input_tokens": usage.input_tokens,
            "cache_creation_input_tokens": usage.cache_creation_input_tokens,
            "cache_read_input_tokens": usage.cache_read_input_tokens,
            "output_tokens": usage.output_tokens,
            "output_tokens_details": usage.output_tokens_details,
        }
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        yield {"type": "message_delta", "delta": delta, "usage": told}
        yield {"type": "message_stop"}

    def _reason(self, finished: Finished) -> StopReason:
        if finished.stop_string is not None:
            return "stop_sequence"
        if finished.reason is not FinishReason.STOP or finished.call_cut:
            # it ended before the tokens that were allowed: the context was full
            full = finished.usage.completion_tokens < self._max_tokens
            return "model_context_window_exceeded" if full else "max_tokens"
        called = any(isinstance(block, ToolUseBlock) for block in self.message.content)
        return "tool_use" if called else "end_turn"


class MessageEvents:
    """Frames the stream: named events, whose data is JSON."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def take(self, _index: int, event: Event) -> bytes:
        """Frame what happened."""
        return _framed(self._answering.take(event))

    def ping(self) -> bytes:
        """Frame that nothing has happened for a while; the stream has begun with it."""
        return _framed(self._answering.begin()) + _framed(iter([PING]))

    def finish(self) -> bytes:
        """Write nothing: the last event was the end."""
        return b""

    def fail(self, error: Error) -> bytes:
        """Frame a failure, after which nothing comes."""
        return error_event(error)


def _framed(events: Iterator[dict[str, Any]]) -> bytes:
    return b"".join(json_event(event, event["type"]) for event in events)


def _arguments(text: str) -> dict[str, Any]:
    """Read a call's arguments; those that were cut off are none."""
    try:
        arguments: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
    return arguments
