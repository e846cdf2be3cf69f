"""LocalLab's bytes: how its streams are framed and what its errors look like.

A client that asks for `text/event-stream` gets `TextEvents` of the kit. The framings here
are for the original clients and curl: they read lines, strip each, and yield the rest as it is.

Source: stream_generate and stream_chat in locallab-client 1.1.0.
"""

import json
import re
from typing import Final

from app.dialects.kit.framing import TextFraming, json_line
from app.dialects.kit.refusals import STATUSES, Detail, documented, refuse_with_detail
from app.errors import Error

# What the clients strip from the end of a line. Not \n and \r: they are escaped before.
SPACE: Final = (
    "\t\x0b\x0c\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
# The clients take a line that begins so for the end or a failure: cut it after its first letter.
_SIGNALS: Final = re.compile(r"(?<=\[)(?=(?:DONE|ERROR)\])|(?<=E)(?=rror:)")

refuse: Final = refuse_with_detail(STATUSES)
refusals: Final = documented(
    Detail,
    {
        400: "A field is wrong, or no model is loaded",
        401: "The server asks for a token and there is none that holds",
        403: "The user is no administrator",
        404: "No such model on this server, or none is loaded",
        413: "The prompt is longer than the model's context, or the body too large",
        429: "The queue is full or the rate limit reached; see Retry-After",
        500: "The model failed, or its files are broken; what was loaded stays loaded",
        503: "The server is shutting down; see Retry-After",
    },
)


class PlainText(TextFraming):
    """`/generate`: one `data:` line per piece, then `data: [DONE]`."""

    def __init__(self) -> None:
        self._pieces = _Pieces()

    def encode(self, text: str) -> bytes:
        """Frame the next piece."""
        return _lines(self._pieces.take(text))

    def finish(self) -> bytes:
        """Frame what was held back and the end. White space at the very end can't be carried."""
        pieces, _ = self._pieces.rest()
        return _lines(pieces) + b"data: [DONE]\n\n"

    def fail(self, error: Error) -> bytes:
        """Frame what was held back and a failure."""
        pieces, _ = self._pieces.rest()
        return _lines(pieces) + f"data: [ERROR] {_one_line(error.message)}\n\n".encode()


class PlainChat(TextFraming):
    """`/chat`: a `data:` line per piece, as in `PlainText`, and below it a bare line of JSON.

    `stream_chat` reads the JSON and skips the rest; readers of events do the reverse.
    """

    def __init__(self) -> None:
        self._pieces = _Pieces()

    def encode(self, text: str) -> bytes:
        """Frame the next piece."""
        return self._events(self._pieces.take(text))

    def finish(self) -> bytes:
        """Frame what was held back and the end."""
        return self._rest() + b'data: [DONE]\n"[DONE]"\n\n'

    def fail(self, error: Error) -> bytes:
        """Frame what was held back and a failure, in the words of `stream_chat` itself."""
        told = json_line({"error": error.message})
        return self._rest() + f"data: [ERROR] {_one_line(error.message)}\n".encode() + told + b"\n"

    def _rest(self) -> bytes:
        pieces, space = self._pieces.rest()
        return self._events(pieces) + (_chat_line(space) if space else b"")

    def _events(self, pieces: list[str]) -> bytes:
        return b"".join(f"data: {_escaped(p)}\n".encode() + _chat_line(p) for p in pieces)


class _Pieces:
    """Holds text back until a line that is stripped and tried as JSON carries all of it."""

    def __init__(self) -> None:
        self._held = ""

    def take(self, text: str) -> list[str]:
        """Take more text; return pieces that are ready."""
        text = self._held + text
        ready = text.rstrip(SPACE)
        if not ready or _is_json(ready):
            self._held = text
            return []
        self._held = text[len(ready) :]
        return _SIGNALS.split(ready)

    def rest(self) -> tuple[list[str], str]:
        """Return the last pieces and the white space after them."""
        ready = self._held.rstrip(SPACE)
        return (_SIGNALS.split(ready) if ready else []), self._held[len(ready) :]


def _is_json(text: str) -> bool:
    try:
        json.loads(_escaped(text))
    except (ValueError, RecursionError):
        return False
    return True


def _escaped(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _lines(pieces: list[str]) -> bytes:
    return "".join(f"data: {_escaped(piece)}\n\n" for piece in pieces).encode()


def _chat_line(text: str) -> bytes:
    delta = {"content": text, "choices": [{"delta": {"content": text}}]}
    return json_line(delta) + b"\n"


def _one_line(message: str) -> str:
    return " ".join(message.split())
