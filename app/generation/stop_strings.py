"""End a text before the first of some strings, wherever pieces of it begin and end.

The stop string that is complete first wins; of those complete with the same character, the
longest. So the result doesn't depend on how the text was cut into pieces. Knows nothing about
tokens.
"""

from collections.abc import Sequence


class StopStrings:
    """Watches one text. Holds back what may still turn out to be a stop string."""

    def __init__(self, strings: Sequence[str]) -> None:
        assert all(strings), "an empty string would stop every text"
        self._patterns = [_Pattern(string) for string in strings]
        self._held = ""

    def feed(self, piece: str) -> tuple[str, bool]:
        """Take the next piece; return what is certain to be text, and whether the text has ended.

        After True nothing more may be fed.
        """
        text = self._held + piece
        for end, character in enumerate(piece, start=len(self._held) + 1):
            complete = [p.length for p in self._patterns if p.advance(character)]
            if complete:
                self._held = ""
                return text[: end - max(complete)], True
        certain = len(text) - max((p.matched for p in self._patterns), default=0)
        self._held = text[certain:]
        return text[:certain], False

    def flush(self) -> str:
        """Return what was held back; the text has ended by itself."""
        held, self._held = self._held, ""
        return held


class _Pattern:
    """How much of one string the latest characters match (Knuth, Morris and Pratt)."""

    def __init__(self, string: str) -> None:
        self._string = string
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
        while matched and self._string[matched] != character:
            matched = self._shorter[matched - 1]
        return matched + 1 if self._string[matched] == character else 0
