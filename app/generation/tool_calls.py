"""Find tool calls in a text while it is made.

Nothing that may still become a call is given out as text, wherever pieces begin and end, nor the
white space before it. What only looks like a call (another name, other text after the marker)
is text. A call that is cut off keeps what came of its arguments. Cut off before these begin, it is
text as well, unless it comes after another call: then it is left out. Knows the format, nothing
about tokens.
"""

import re
import secrets
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from app.contract.generation import ToolCallDelta
from app.generation.tool_formats import ToolFormat, written

Piece = tuple[int, str | ToolCallDelta | None]
"""(characters of the whole text that are done with, text or a part of a call or neither)."""

_STRUCTURE: Final = re.compile(r'[{}\[\]"]')
_STRING_END: Final = re.compile(r'["\\]')


class _State(Enum):
    TEXT = auto()
    ARGUMENTS = auto()
    TAIL = auto()


class ToolCallParser:
    """Watches one text."""

    def __init__(self, format_: ToolFormat, names: Sequence[str]) -> None:
        self._format = format_
        self._shared = format_.opening + format_.head
        self._first = _beginnings(self._shared, format_.middle, names)
        self._next = {}
        if format_.separator is not None:
            before = format_.tail + format_.separator + format_.head
            self._next = _beginnings(before, format_.middle, names)
        self._search = re.compile("|".join(map(re.escape, self._first)))
        self._state = _State.TEXT
        self._buffer = ""
        self._done = 0
        """Characters before the buffer."""
        self._may_call = True
        self._num_calls = 0
        self._json = _ObjectEnd()

    def feed(self, text: str) -> list[Piece]:
        """Take more text; return what is now certain."""
        self._buffer += text
        pieces: list[Piece] = []
        while self._buffer and self._step(pieces):
            pass
        return pieces

    def flush(self) -> list[Piece]:
        """Return what was held back; the text has ended."""
        held = self._cut(len(self._buffer))
        start = held.lstrip()
        left_out = self._state is not _State.TEXT or (
            self._num_calls > 0 and any(beginning.startswith(start) for beginning in self._first)
        )
        return [(self._done, None if left_out else held)] if held else []

    def _step(self, pieces: list[Piece]) -> bool:
        """Go on in the buffer; whether something may be left to do."""
        match self._state:
            case _State.TEXT:
                return self._text(pieces)
            case _State.ARGUMENTS:
                return self._arguments(pieces)
            case _State.TAIL:
                return self._tail(pieces)

    def _text(self, pieces: list[Piece]) -> bool:
        found = self._search.search(self._buffer) if self._may_call else None
        if found and (self._format.anywhere or found.start() == 0):
            if text := self._buffer[: found.start()].rstrip():
                pieces.append((self._done + len(text), text))
            self._begin(found.end(), self._first[found[0]], pieces)
            return True
        certain = self._certain() if self._may_call else len(self._buffer)
        if certain:
            if not self._format.anywhere:
                self._may_call = False
            pieces.append((self._done + certain, self._cut(certain)))
        return False

    def _certain(self) -> int:
        """How much of the buffer can't belong to a call any more."""
        longest = max(map(len, self._first))
        starts = range(max(0, len(self._buffer) - longest), len(self._buffer))
        for start in starts if self._format.anywhere else (0,):
            rest = self._buffer[start:]
            # the part that all names share rules out nearly every place at once
            if rest.startswith(self._shared[: len(rest)]) and any(
                beginning.startswith(rest) for beginning in self._first
            ):
                return len(self._buffer[:start].rstrip())
        if not self._format.anywhere:
            return len(self._buffer)
        return len(self._buffer.rstrip())

    def _begin(self, end: int, name: str, pieces: list[Piece]) -> None:
        """A call's arguments begin with the brace before `end`."""
        self._cut(end - 1)
        call_id = secrets.token_hex(5)[:9] if self._format.short_ids else _call_id()
        pieces.append((self._done, ToolCallDelta(self._num_calls, call_id, name, "")))
        self._num_calls += 1
        self._json = _ObjectEnd()
        self._state = _State.ARGUMENTS

    def _arguments(self, pieces: list[Piece]) -> bool:
        end = self._json.feed(self._buffer)
        if end is not None:
            self._state = _State.TAIL
        text = self._cut(len(self._buffer) if end is None else end)
        pieces.append((self._done, ToolCallDelta(self._num_calls - 1, None, None, text)))
        return end is not None

    def _tail(self, pieces: list[Piece]) -> bool:
        for beginning, name in self._next.items():
            if self._buffer.startswith(beginning):
                self._begin(len(beginning), name, pieces)
                return True
        end = self._format.tail + self._format.closing
        if self._buffer.startswith(end):
            self._cut(len(end))
            pieces.append((self._done, None))
        elif any(other.startswith(self._buffer) for other in (end, *self._next)):
            return False
        self._state = _State.TEXT
        self._may_call = self._format.anywhere
        return True

    def _cut(self, length: int) -> str:
        """Take characters out of the buffer."""
        text, self._buffer = self._buffer[:length], self._buffer[length:]
        self._done += length
        return text


class _ObjectEnd:
    """Where a JSON object ends that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, text: str) -> int | None:
        """Return the index behind the object's end; None: not in this piece."""
        at = 0
        if self._escaped and text:
            at, self._escaped = 1, False
        while found := (_STRING_END if self._in_string else _STRUCTURE).search(text, at):
            at = found.end()
            match found[0]:
                case '"':
                    self._in_string = not self._in_string
                case "\\":
                    self._escaped = at == len(text)
                    at += 1
                case "{" | "[":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    if not self._depth:
                        return at
        return None


def _beginnings(before: str, middle: str, names: Sequence[str]) -> dict[str, str]:
    """All of a call up to the first brace of its arguments → the name in it."""
    return {f"{before}{written(name)}{middle}{{": name for name in names}


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"
