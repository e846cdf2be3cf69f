"""LocalLab's bytes: how its streams are framed and what its errors look like.

A client that asks for `text/event-stream` gets `app.dialects.sse.TextEvents`. The framings here
are for the original clients and curl: they read lines, strip each, and yield the rest as it is.

Source: stream_generate and stream_chat in locallab-client 1.1.0.
"""

import json
import re
from typing import Any, Final

import msgspec
from litestar.response import Response

from app.dialects.locallab.schemas import ErrorAnswer
from app.errors import (
    AccessError,
    ContextOverflow,
    Error,
    Forbidden,
    RequestError,
    ShuttingDown,
    TryAgainLater,
    UnknownModel,
)

# What the clients strip from the end of a line. Not \n and \r: they are escaped before.
SPACE: Final = (
    "\t\x0b\x0c\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
# The clients take a line that begins so for the end or a failure: cut it behind its first letter.
_SIGNALS: Final = re.compile(r"(?<=\[)(?=(?:DONE|ERROR)\])|(?<=E)(?=rror:)")

_STATUS: Final[dict[type[Error], int]] = {
    RequestError: 400,
    ContextOverflow: 413,
    UnknownModel: 404,
    AccessError: 401,
    Forbidden: 403,
    TryAgainLater: 429,
    ShuttingDown: 503,
    Error: 500,
}


def refuse(error: Error) -> Response[Any]:
    """The answer to an error of the tree."""
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if isinstance(error, TryAgainLater):
        headers["Retry-After"] = str(error.retry_after_s)
    return envelope(status, error.message, headers)


def envelope(status: int, message: str, headers: dict[str, str]) -> Response[Any]:
    """The body of every answer that is not a success."""
    return Response(ErrorAnswer(message), status_code=status, headers=headers)


class PlainText:
    """`/generate`: a `data:` line a piece, the end is `data: [DONE]`."""

    def __init__(self) -> None:
        self._pieces = _Pieces()

    def encode(self, text: str) -> bytes:
        """Frame the next piece."""
        return _lines(self._pieces.take(text))

    def finish(self) -> bytes:
        """Frame what was held back and the end. White space at the very end can't be carried."""
        pieces, _ = self._pieces.rest()
        return _lines(pieces) + b"data: [DONE]\n\n"

    def fail(self, message: str) -> bytes:
        """Frame what was held back and a failure."""
        pieces, _ = self._pieces.rest()
        return _lines(pieces) + f"data: [ERROR] {_one_line(message)}\n\n".encode()


class PlainChat:
    """`/chat`: the same, and below each `data:` line the piece as a bare line of JSON.

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

    def fail(self, message: str) -> bytes:
        """Frame what was held back and a failure, in the words of `stream_chat` itself."""
        error = msgspec.json.encode({"error": message})
        return self._rest() + f"data: [ERROR] {_one_line(message)}\n".encode() + error + b"\n\n"

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
        """Return the last pieces and the white space behind them."""
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
    return msgspec.json.encode(delta) + b"\n\n"


def _one_line(message: str) -> str:
    return " ".join(message.split())
