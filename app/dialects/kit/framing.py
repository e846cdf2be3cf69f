"""How streams are written: server-sent events, lines of JSON, and what a framing has to do.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
from abc import ABC, abstractmethod
from typing import Any, Final, Protocol

import msgspec

from app.contract.generation import Event, TextDelta
from app.dialects.kit.host import AnyRequest
from app.errors import Error

EVENT_STREAM: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"
STREAM_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would collect the stream
}

# Where text could be taken for the end or a failure, it is cut into two events.
_SIGNALS: Final = re.compile(r"(?<=\[)(?=(?:DONE|ERROR)\])")


def asks_for(request: AnyRequest, media_type: str) -> bool:
    """Whether the Accept header names this very type; a wildcard is not asking."""
    ranges = request.headers.get("accept", "").lower().split(",")
    return any(part.split(";")[0].strip() == media_type for part in ranges)


def event(data: str) -> str:
    r"""Write one event; a newline in the data begins a further `data:` line. Takes no `\r`."""
    return "".join(f"data: {line}\n" for line in data.split("\n")) + "\n"


def json_event(data: Any, name: str = "") -> bytes:
    """Write one event whose data is JSON, under a name if it has one."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: %b\n\n" % msgspec.json.encode(data)


def json_line(data: Any) -> bytes:
    """Write one line of JSON."""
    return msgspec.json.encode(data) + b"\n"


class Framing(Protocol):
    """How an endpoint writes the stream of one generation or several."""

    def take(self, index: int, event: Event) -> bytes:
        """Frame what happened to generation number `index`; may hold it back."""

    def finish(self) -> bytes:
        """Frame what was held back and the end, after every generation's `Finished`."""

    def fail(self, error: Error) -> bytes:
        """Frame what was held back and a failure, so that it never looks like the end."""


class TextFraming(ABC):
    """A `Framing` for dialects whose stream is the text of one generation and nothing else."""

    def take(self, _index: int, event: Event) -> bytes:
        """Frame the text of an event."""
        return self.encode(event.text) if isinstance(event, TextDelta) else b""

    @abstractmethod
    def encode(self, text: str) -> bytes:
        """Frame the next piece of the text; may hold it back and return nothing."""

    def finish(self) -> bytes:
        """Write nothing: the stream's end says it."""
        return b""

    @abstractmethod
    def fail(self, error: Error) -> bytes:
        """Frame what was held back and a failure, after which nothing comes."""


class TextEvents(TextFraming):
    r"""Events whose data, joined, are the text, then `[DONE]`.

    An event can't carry `\r`, so every line end arrives as `\n`.
    """

    def __init__(self) -> None:
        self._held = ""

    def encode(self, text: str) -> bytes:
        """Frame the next piece."""
        text = self._held + text
        # the other half of \r\n may be in the next piece
        self._held = "\r" if text.endswith("\r") else ""
        return self._events(text.removesuffix("\r"))

    def finish(self) -> bytes:
        """Frame what was held back and the end."""
        return self._events(self._held) + event("[DONE]").encode()

    def fail(self, error: Error) -> bytes:
        """Frame what was held back and a failure."""
        message = " ".join(error.message.split())
        return self._events(self._held) + event(f"[ERROR] {message}").encode()

    def _events(self, text: str) -> bytes:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return "".join(event(part) for part in _SIGNALS.split(text) if part).encode()
