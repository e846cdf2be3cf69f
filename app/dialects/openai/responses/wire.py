"""`POST /v1/responses`: the answer and the events that build it.

One state machine makes both: a whole answer is the stream's last event.
"""

import time
from collections.abc import Iterator
from typing import Any

from app.contract.generation import Event, Finished, ReasoningDelta, TextDelta, ToolCallDelta
from app.contract.sampling import FinishReason, SamplingParams
from app.dialects.kit.framing import json_event
from app.dialects.openai.chat_wire import Logprob
from app.dialects.openai.ids import new_id
from app.dialects.openai.responses.records import (
    Failure,
    FunctionCall,
    IncompleteDetails,
    ItemStatus,
    Json,
    OutputItem,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningText,
    ResponseAnswer,
    ResponseUsage,
)
from app.dialects.openai.responses.schemas import ResponseBody
from app.dialects.openai.wire import detail
from app.errors import Error


class Answering:
    """Takes generation's events and yields those of the API."""

    def __init__(
        self, asked: ResponseBody, model_id: str, sampling: SamplingParams, *, stored: bool
    ) -> None:
        self.response = ResponseAnswer.begun(asked, model_id, sampling, stored=stored)
        self._number = -1

    def begin(self) -> Iterator[Json]:
        """What comes before anything is written."""
        yield self._event("response.created", response=self.response)
        yield self._event("response.in_progress", response=self.response)

    def take(self, event: Event) -> Iterator[Json]:
        """What an event of the generation means."""
        match event:
            case ReasoningDelta(text):
                yield from self._thought(text)
            case TextDelta():
                yield from self._text(event)
            case ToolCallDelta():
                yield from self._call(event)
            case Finished():
                yield from self._finished(event)

    def fail(self, error: Error) -> Iterator[Json]:
        """End the response with a failure."""
        told = detail(error)
        self.response.status = "failed"
        self.response.store = False
        self.response.error = Failure("server_error", told.message)
        yield self._event("response.failed", response=self.response)

    @property
    def _open(self) -> OutputItem | None:
        """The item that is being written."""
        last = self.response.output[-1] if self.response.output else None
        return last if last is not None and last.status == "in_progress" else None

    def _thought(self, text: str) -> Iterator[Json]:
        item = self._open
        if not isinstance(item, ReasoningItem):
            item = ReasoningItem(id=new_id("rs"), content=[])
            yield from self._add(item)
            item.content.append(ReasoningText())
            yield self._in_item("response.content_part.added", item, part=item.content[0])
        item.content[0].text += text
        yield self._in_item("response.reasoning_text.delta", item, delta=text)

    def _text(self, event: TextDelta) -> Iterator[Json]:
        item = self._open
        if not isinstance(item, OutputMessage):
            yield from self._close("completed")
            item = OutputMessage(id=new_id("msg"), content=[])
            yield from self._add(item)
            item.content.append(OutputText())
            yield self._in_item("response.content_part.added", item, part=item.content[0])
        part = item.content[0]
        logprobs = [Logprob.of(token) for token in event.logprobs]
        part.text += event.text
        part.logprobs.extend(logprobs)
        yield self._in_item("response.output_text.delta", item, delta=event.text, logprobs=logprobs)

    def _call(self, event: ToolCallDelta) -> Iterator[Json]:
        item = self._open
        if event.id is not None:
            yield from self._close("completed")
            item = FunctionCall(id=new_id("fc"), call_id=event.id, name=event.name or "")
            yield from self._add(item)
        assert isinstance(item, FunctionCall), "the first delta of a call has its id"
        item.arguments += event.arguments
        if event.arguments:
            yield self._in_item(
                "response.function_call_arguments.delta", item, delta=event.arguments
            )

    def _finished(self, event: Finished) -> Iterator[Json]:
        if all(isinstance(item, ReasoningItem) for item in self.response.output):
            yield from self._text(TextDelta(""))
        cut = event.reason is FinishReason.LENGTH
        yield from self._close("incomplete" if cut else "completed")
        self.response.status = "incomplete" if cut else "completed"
        self.response.incomplete_details = IncompleteDetails() if cut else None
        self.response.completed_at = None if cut else int(time.time())
        self.response.usage = ResponseUsage.of(event.usage)
        yield self._event(f"response.{self.response.status}", response=self.response)

    def _add(self, item: OutputItem) -> Iterator[Json]:
        self.response.output.append(item)
        yield self._event(
            "response.output_item.added", output_index=len(self.response.output) - 1, item=item
        )

    def _close(self, status: ItemStatus) -> Iterator[Json]:
        """End the open item, if there is one."""
        item = self._open
        match item:
            case None:
                return
            case ReasoningItem(content=[thought]):
                yield self._in_item("response.reasoning_text.done", item, text=thought.text)
                yield self._in_item("response.content_part.done", item, part=thought)
            case OutputMessage(content=[part]):
                yield self._in_item(
                    "response.output_text.done", item, text=part.text, logprobs=part.logprobs
                )
                yield self._in_item("response.content_part.done", item, part=part)
            case FunctionCall(arguments=arguments):
                yield self._in_item(
                    "response.function_call_arguments.done",
                    item,
                    name=item.name,
                    arguments=arguments,
                )
        item.status = status
        yield self._event(
            "response.output_item.done", output_index=len(self.response.output) - 1, item=item
        )

    def _in_item(self, kind: str, item: OutputItem, **fields: Any) -> Json:
        at: Json = {"item_id": item.id, "output_index": len(self.response.output) - 1}
        if not isinstance(item, FunctionCall):
            at["content_index"] = 0
        return self._event(kind, **at, **fields)

    def _event(self, kind: str, **fields: Any) -> Json:
        self._number += 1
        return {"type": kind, "sequence_number": self._number, **fields}


class ResponseEvents:
    """Frames the stream."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._begun = False

    def take(self, _index: int, event: Event) -> bytes:
        """Frame what an event means."""
        begin = b"" if self._begun else _frames(self._answering.begin())
        self._begun = True
        return begin + _frames(self._answering.take(event))

    def finish(self) -> bytes:
        """The last event was the end."""
        return b""

    def fail(self, error: Error) -> bytes:
        """Frame a failure."""
        return _frames(self._answering.fail(error))


def _frames(events: Iterator[Json]) -> bytes:
    # encoded one by one: the next one changes what this one shows
    return b"".join(json_event(event, event["type"]) for event in events)
