"""Find tool calls in a text while it is made.

Nothing that may still become a call is given out as text, wherever pieces begin and end, nor the
white space before it. What only looks like a call (another name, other text after the marker) is
text. A call that is cut off keeps what came of its arguments. One that is cut off before they begin
is text too, unless it comes after another call or the answer had to be one: then it is left out.
Takes time in proportion to the text. Knows the format, nothing about tokens.
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

    def __init__(
        self, format_: ToolFormat, names: Sequence[str], *, required: bool = False
    ) -> None:
        """Begin a text.

        Args:
            format_: how calls are written.
            names: those of the tools that may be called.
            required: whether the whole text has to be calls.
        """
        self._format = format_
        self._required = required
        self._shared = format_.opening + format_.head
        self._first = _beginnings(self._shared, format_.middle, names)
        self._next = {}
        if format_.separator is not None:
            before = format_.tail + format_.separator + format_.head
            self._next = _beginnings(before, format_.middle, names)
        self._longest = max(map(len, self._first))
        self._search = re.compile("|".join(map(re.escape, self._first)))
        self._state = _State.TEXT
        self._buffer = ""
        self._at = 0
        """Where in the buffer everything before is done with."""
        self._before = 0
        """Characters before the buffer."""
        self._blanks: list[str] = []
        """White space before the buffer that is not given out yet: a call may follow it."""
        self._may_call = True
        self._num_calls = 0
        self._json = _ObjectEnd()

    @property
    def cut(self) -> bool:
        """Whether the text, if it ended here, would leave the last call's arguments unfinished."""
        return self._state is _State.ARGUMENTS

    def feed(self, text: str) -> list[Piece]:
        """Take more text; return what is now certain."""
        self._before += self._at
        self._buffer = self._buffer[self._at :] + text
        self._at = 0
        pieces: list[Piece] = []
        while self._at < len(self._buffer) and self._step(pieces):
            pass
        return pieces

    def flush(self) -> list[Piece]:
        """Return what was held back; the text has ended."""
        rest = self._take(len(self._buffer))
        held = "".join([*self._blanks, rest])
        self._blanks.clear()
        opening = any(beginning.startswith(rest.lstrip()) for beginning in self._first)
        left_out = self._state is not _State.TEXT or (
            opening and (self._num_calls > 0 or self._required)
        )
        return [(self._done, None if left_out else held)] if held else []

    @property
    def _done(self) -> int:
        return self._before + self._at

    def _step(self, pieces: list[Piece]) -> bool:
        """Go on in the buffer; return whether something may be left to do."""
        match self._state:
            case _State.TEXT:
                return self._text(pieces)
            case _State.ARGUMENTS:
                return self._arguments(pieces)
            case _State.TAIL:
                return self._tail(pieces)

    def _text(self, pieces: list[Piece]) -> bool:
        found = self._search.search(self._buffer, self._at) if self._may_call else None
        if found and (self._format.anywhere or self._before + found.start() == 0):
            self._give(found.start(), pieces)
            self._blanks.clear()  # white space before a call is no text
            self._begin(found.end(), self._first[found[0]], pieces)
            return True
        self._give(len(self._buffer) - self._num_held(), pieces)
        return False

    def _give(self, end: int, pieces: list[Piece]) -> None:
        """Give out the buffer up to `end` as text, but for white space that a call may follow."""
        text = self._take(end)
        keeps = self._may_call and self._format.anywhere
        certain = text.rstrip() if keeps else text
        if certain:
            done = self._done - len(text) + len(certain)
            pieces.append((done, "".join([*self._blanks, certain])))
            self._blanks.clear()
            self._may_call = keeps
        if len(certain) < len(text):
            self._blanks.append(text[len(certain) :])

    def _num_held(self) -> int:
        """Count the characters at the buffer's end that may be the beginning of a call."""
        if not self._may_call:
            return 0
        buffer, size = self._buffer, len(self._buffer) - self._at
        if not self._format.anywhere:
            return size if self._begins(self._at) else 0
        # the part that all names share rules out nearly every place at once
        start = buffer.find(self._shared, max(self._at, len(buffer) - self._longest))
        while start >= 0:
            if self._begins(start):
                return len(buffer) - start
            start = buffer.find(self._shared, start + 1)
        sizes = range(min(size, len(self._shared) - 1), 0, -1)
        return next((size for size in sizes if buffer.endswith(self._shared[:size])), 0)

    def _begins(self, start: int) -> bool:
        """Whether the buffer from `start` on is the beginning of a call, cut or whole."""
        if len(self._buffer) - start > self._longest:
            return False
        rest = self._buffer[start:]
        return any(beginning.startswith(rest) for beginning in self._first)

    def _begin(self, end: int, name: str, pieces: list[Piece]) -> None:
        """Begin a call; its arguments begin with the brace before `end`."""
        self._take(end - 1)
        call_id = secrets.token_hex(5)[:9] if self._format.short_ids else _call_id()
        pieces.append((self._done, ToolCallDelta(self._num_calls, call_id, name, "")))
        self._num_calls += 1
        self._json = _ObjectEnd()
        self._state = _State.ARGUMENTS

    def _arguments(self, pieces: list[Piece]) -> bool:
        end = self._json.feed(self._buffer, self._at)
        if end is not None:
            self._state = _State.TAIL
        text = self._take(len(self._buffer) if end is None else end)
        pieces.append((self._done, ToolCallDelta(self._num_calls - 1, None, None, text)))
        return end is not None

    def _tail(self, pieces: list[Piece]) -> bool:
        for beginning, name in self._next.items():
            if self._buffer.startswith(beginning, self._at):
                self._begin(self._at + len(beginning), name, pieces)
                return True
        end = self._format.tail + self._format.closing
        if self._buffer.startswith(end, self._at):
            self._take(self._at + len(end))
            pieces.append((self._done, None))
        elif self._is_cut((end, *self._next)):
            return False
        self._state = _State.TEXT
        self._may_call = self._format.anywhere
        return True

    def _is_cut(self, wholes: Sequence[str]) -> bool:
        """Whether what is left of the buffer is the beginning of one of these."""
        size = len(self._buffer) - self._at
        return any(size < len(whole) and self._buffer.endswith(whole[:size]) for whole in wholes)

    def _take(self, end: int) -> str:
        """Take the buffer up to `end`."""
        text, self._at = self._buffer[self._at : end], end
        return text


class _ObjectEnd:
    """Finds where a JSON object ends that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, text: str, at: int) -> int | None:
        """Take text from an index on; return the index after the object's end, None if later."""
        if self._escaped and at < len(text):
            at, self._escaped = at + 1, False
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
    """Map all of a call up to the first brace of its arguments to the name in it."""
    return {f"{before}{written(name)}{middle}{{": name for name in names}


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"
