"""`POST /api/chat` and `/api/generate`: the answer, whole and as lines, with its timings."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from app.contract.generation import Event, Finished, ReasoningDelta, TextDelta, ToolCallDelta
from app.contract.sampling import FinishReason
from app.contract.tokens import TokenLogprob
from app.dialects.kit.framing import json_line
from app.dialects.ollama.wire import ErrorAnswer
from app.errors import Error

_LOWEST_LOGPROB: Final = -9999.0
"""JSON has no infinity."""
Kind = Literal["chat", "generate"]


class CalledFunction(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be called."""

    index: int
    name: str
    arguments: dict[str, Any]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call."""

    id: str
    function: CalledFunction


class AnswerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The assistant's turn, or the next piece of it."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    thinking: str | UnsetType = UNSET
    tool_calls: list[Call] | UnsetType = UNSET


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer, or a line of a stream; the timings are in nanoseconds."""

    model: str
    created_at: str
    message: AnswerMessage | UnsetType = UNSET
    response: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    done: bool
    done_reason: str | UnsetType = UNSET
    logprobs: list[dict[str, Any]] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class Clock:
    """When the parts of an answer began; starts when it is made."""

    def __init__(self) -> None:
        self._began = self._started = time.perf_counter_ns()
        self._first: int | None = None

    def start(self) -> None:
        """Note that the model is there and has its request."""
        self._started = time.perf_counter_ns()

    def note(self) -> None:
        """Note an event of the generation: the first one ends the prompt."""
        self._first = self._first or time.perf_counter_ns()

    def timings(self) -> dict[str, int]:
        """The durations, in nanoseconds; the answer ends now."""
        now = time.perf_counter_ns()
        first = self._first or now
        return {
            "total_duration": now - self._began,
            "load_duration": self._started - self._began,
            "prompt_eval_duration": first - self._started,
            "eval_duration": now - first,
        }


class Answering:
    """Makes the lines of one answer's stream, and the whole answer of what they carry."""

    def __init__(self, kind: Kind, model: str, clock: Clock) -> None:
        """Begin.

        Args:
            kind: whose form the answer has.
            model: its name as the client wrote it.
            clock: has been told of the start.
        """
        self._kind = kind
        self._model = model
        self._clock = clock
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[Call] = []
        self._logprobs: list[dict[str, Any]] = []
        self._open: tuple[ToolCallDelta, list[str]] | None = None
        self._last: Line | None = None

    def take(self, event: Event) -> list[Line]:
        """Make the lines that an event is worth: calls are told whole."""
        self._clock.note()
        match event:
            case TextDelta(text, logprobs):
                told = [_told(token) for token in logprobs]
                self._texts.append(text)
                self._logprobs += told
                return [*self._called(), self._line(text, logprobs=told)]
            case ReasoningDelta(text):
                self._thoughts.append(text)
                return [self._line("", thinking=text)]
            case ToolCallDelta() if event.id is not None:
                lines = self._called()
                self._open = (event, [event.arguments])
                return lines
            case ToolCallDelta():
                assert self._open is not None, "a call begins with its id"
                self._open[1].append(event.arguments)
            case Finished():
                # arguments that were cut off are no JSON: such a call is left out
                lines = [] if event.call_cut else self._called()
                self._last = self._end(event)
                return [*lines, self._last]
        return []

    def whole(self) -> Line:
        """The whole answer, after the last event."""
        assert self._last is not None, "the last event is Finished"
        thoughts = "".join(self._thoughts)
        filled = self._line("".join(self._texts), self._calls, self._logprobs, thinking=thoughts)
        return msgspec.structs.replace(
            self._last,
            message=filled.message,
            response=filled.response,
            thinking=filled.thinking,
            logprobs=filled.logprobs,
        )

    def _called(self) -> list[Line]:
        """Tell the call that has come to its end, if there is one."""
        if self._open is None:
            return []
        head, pieces = self._open
        self._open = None
        arguments = msgspec.json.decode("".join(pieces), type=dict[str, Any])
        function = CalledFunction(index=len(self._calls), name=head.name or "", arguments=arguments)
        self._calls.append(Call(id=head.id or "", function=function))
        return [self._line("", self._calls[-1:])]

    def _line(
        self,
        text: str,
        calls: Sequence[Call] = (),
        logprobs: Sequence[dict[str, Any]] = (),
        *,
        thinking: str = "",
        done: bool = False,
        **fields: Any,
    ) -> Line:
        chat = self._kind == "chat"
        thought = thinking or UNSET
        message = AnswerMessage(content=text, thinking=thought, tool_calls=list(calls) or UNSET)
        return Line(
            model=self._model,
            created_at=now(),
            message=message if chat else UNSET,
            response=UNSET if chat else text,
            thinking=UNSET if chat else thought,
            logprobs=list(logprobs) or UNSET,
            done=done,
            **fields,
        )

    def _end(self, finished: Finished) -> Line:
        timings: dict[str, Any] = self._clock.timings()
        return self._line(
            "",
            done=True,
            done_reason="stop" if finished.reason is FinishReason.STOP else "length",
            prompt_eval_count=finished.usage.prompt_tokens,
            eval_count=finished.usage.completion_tokens,
            **timings,
        )


class Lines:
    """Frames the stream: a line of JSON for each piece, the last one with the timings."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def take(self, _index: int, event: Event) -> bytes:
        """Frame what happened."""
        return b"".join(map(json_line, self._answering.take(event)))

    def finish(self) -> bytes:
        """Write nothing: the last line was the end."""
        return b""

    def fail(self, error: Error) -> bytes:
        """Frame a failure, after which nothing comes."""
        return json_line(ErrorAnswer(error.message))


def empty_answer(kind: Kind, model: str, reason: Literal["load", "unload"], clock: Clock) -> Line:
    """The answer to a request that asks for nothing but that the model comes or goes."""
    chat = kind == "chat"
    return Line(
        model=model,
        created_at=now(),
        message=AnswerMessage() if chat else UNSET,
        response=UNSET if chat else "",
        done=True,
        done_reason=reason,
        total_duration=clock.timings()["total_duration"],
        load_duration=clock.timings()["total_duration"],
    )


def now() -> str:
    """The time, as answers tell it."""
    return rfc3339(datetime.now(UTC))


def rfc3339(moment: datetime) -> str:
    """A time in UTC as answers tell it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _told(token: TokenLogprob) -> dict[str, Any]:
    def one(token: TokenLogprob) -> dict[str, Any]:
        logprob = max(token.logprob, _LOWEST_LOGPROB)
        return {"token": token.text, "logprob": logprob, "bytes": list(token.bytes)}

    return {**one(token), "top_logprobs": [one(top) for top in token.top]}
