r"""Classes of characters in the dialect of the grammar library, as ECMA-262 means them.

Characters that JSON writes only as \u escapes are left out of every class: the grammar doesn't
have those escapes, and a pattern of nothing else would look as if something could match.
"""

from typing import Final

DIGITS: Final = "[0-9]"
WORD: Final = "[0-9A-Z_a-z]"
_SPACES: Final = (
    r"\x{9}-\x{D}\x{20}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}"
    r"\x{FEFF}"
)
LETTERS: Final[dict[str, int | str]] = {
    "d": DIGITS,
    "D": "[^0-9]",
    "w": WORD,
    "W": "[^0-9A-Z_a-z]",
    "s": f"[{_SPACES}]",
    "S": f"[^{_SPACES}]",
    "t": 9,
    "n": 10,
    "v": 11,
    "f": 12,
    "r": 13,
}
"""What stands for a set or a character behind a backslash."""
LINE_ENDS: Final = r"\x{A}\x{D}\x{2028}\x{2029}"

_UNWRITABLE: Final = r"\x{0}-\x{7}\x{B}\x{E}-\x{1F}\x{7F}"
_UNWRITABLE_CODES: Final = {*range(8), 0xB, *range(0xE, 0x20), 0x7F}
_NOTHING: Final = r"[^\x{0}-\x{10FFFF}]"


def writable(text: str) -> bool:
    r"""Whether JSON can write the text without \u escapes."""
    return not any(ord(character) in _UNWRITABLE_CODES for character in text)


def alone(code: int) -> str:
    """Write one character outside a class."""
    if code in _UNWRITABLE_CODES:
        return _NOTHING
    character = chr(code)
    return character if character.isascii() and character.isalnum() else member(code)


def member(part: int | str) -> str:
    """Write a character, or a set that is written already, inside a class."""
    return part if isinstance(part, str) else f"\\x{{{part:X}}}"


class Class:
    """A class of characters, written while its members are read."""

    def __init__(self, *, negated: bool = False) -> None:
        self._negated = negated
        self._parts: list[str] = []
        self._writable = True

    def add(self, low: int | str, high: int | str | None = None) -> None:
        """Add a character, a range of them, or a set."""
        if isinstance(low, str):
            self._parts.append(low)
            self._writable = self._writable and low in (DIGITS, WORD)
            return
        high = low if high is None else high
        assert isinstance(high, int), "a range has characters at both ends"
        self._parts.append(f"{member(low)}-{member(high)}")
        self._writable = self._writable and low >= 0x20 and not low <= 0x7F <= high

    def __str__(self) -> str:
        members = "".join(self._parts)
        if self._negated:
            return f"[^{members}{_UNWRITABLE}]"
        if not members:
            return _NOTHING
        return f"[{members}]" if self._writable else f"[{members}&&[^{_UNWRITABLE}]]"
