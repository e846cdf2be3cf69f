"""End a text before the first of some strings, wherever pieces of it begin and end.

The stop string that is complete first wins; of those complete with the same character, the
longest. So the result doesn't depend on how the text was cut into pieces. Takes time in proportion
to the text. Knows nothing about tokens.
"""

from collections import deque
from collections.abc import Sequence


class StopStrings:
    """Watches one text. Holds back what may still turn out to be a stop string."""

    def __init__(self, strings: Sequence[str]) -> None:
        assert all(strings), "an empty string would stop every text"
        self._patterns = [_Pattern(string) for string in strings]
        self._held: deque[str] = deque()
        self._num_held = 0
        self.found: str | None = None
        """The string that has ended the text."""

    def feed(self, piece: str) -> tuple[str, bool]:
        """Take the next piece; return what is certain to be text, and whether the text has ended.

        After True nothing more may be fed.
        """
        before = self._num_held
        if piece:
            self._held.append(piece)
            self._num_held += len(piece)
        for end, character in enumerate(piece, start=before + 1):
            complete = [p for p in self._patterns if p.advance(character)]
            if complete:
                longest = max(complete, key=lambda pattern: pattern.length)
                self.found = longest.string
                text = self._take(end - longest.length)
                self._held.clear()
                self._num_held = 0
                return text, True
        most = max((p.matched for p in self._patterns), default=0)
        return self._take(self._num_held - most), False

    def flush(self) -> str:
        """Return what was held back; the text has ended by itself."""
        return self._take(self._num_held)

    def _take(self, length: int) -> str:
        """Take characters from the beginning of what is held."""
        self._num_held -= length
        taken = []
        while length:
            piece = self._held.popleft()
            taken.append(piece[:length])
            if len(piece) > length:
                self._held.appendleft(piece[length:])
            length -= len(taken[-1])
        return "".join(taken)


class _Pattern:
    """How much of one string the latest characters match (Knuth, Morris and Pratt)."""

    def __init__(self, string: str) -> None:
        self.string = string
        self.length = len(string)
        self.matched = 0
        # _shorter[n]: the longest proper prefix that also ends the first n + 1 characters
        self._shorter: list[int] = [0]
        for character in string[1:]:
            self._shorter.append(self._next(self._shorter[-1], character))

    def advance(self, character: str) -> bool:
        """Take one character; return whether the string is complete."""
        self.matched = self._next(self.matched, character)
        return self.matched == self.length

    def _next(self, matched: int, character: str) -> int:
        while matched and self.string[matched] != character:
            matched = self._shorter[matched - 1]
        return matched + 1 if self.string[matched] == character else 0
