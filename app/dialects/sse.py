"""Server-sent events: the framing that dialects share.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
from typing import Any, Final

from litestar import Request

MEDIA_TYPE: Final = "text/event-stream"
HEADERS: Final = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would collect the stream
}

# Where text could be taken for the end or a failure, it is cut into two events.
_SIGNALS: Final = re.compile(r"(?<=\[)(?=(?:DONE|ERROR)\])")


def asks_for(request: Request[Any, Any, Any], media_type: str) -> bool:
    """Whether the Accept header names this very type; a wildcard is not asking."""
    ranges = request.headers.get("accept", "").lower().split(",")
    return any(part.split(";")[0].strip() == media_type for part in ranges)


def event(data: str) -> str:
    r"""One event; a newline in the data begins a further `data:` line. Takes no `\r`."""
    return "".join(f"data: {line}\n" for line in data.split("\n")) + "\n"


class TextEvents:
    r"""Frames a text: events whose data, joined, are the text, then `[DONE]`.

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

    def fail(self, message: str) -> bytes:
        """Frame what was held back and a failure, after which nothing comes."""
        return self._events(self._held) + event(f"[ERROR] {' '.join(message.split())}").encode()

    def _events(self, text: str) -> bytes:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return "".join(event(part) for part in _SIGNALS.split(text) if part).encode()
