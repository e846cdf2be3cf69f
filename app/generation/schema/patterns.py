r"""Translate a JSON Schema's `pattern` into the dialect of the grammar library.

JSON Schema means ECMA-262's regular expressions with the flag `u`; the library reads those of
Rust's regex crate. The two look alike and differ in what `.`, `\s`, `\A`, `[[:alpha:]]`, `[]` or
`(?x)` mean, so a pattern is parsed here and written anew with what means the same to the library.

Beyond the flag `u`, only what every dialect that has it reads in one way is accepted: an escaped
punctuation mark, a lone `]` or `}`, `[\w-.]`, `(?P<name>…)`, `(?i)`.

Sources: ECMA-262 §22.2.1 and its annex B.1.2; the syntax of regex-syntax 0.8.
"""

import re
from typing import Final

import msgspec

from app.generation.schema.characters import LETTERS, LINE_ENDS, Class, alone

MAX_GROUPS: Final = 50
"""Groups inside each other."""

_SYNTAX: Final = set(r"^$\.*+?()[]{}|/")
"""What may be escaped under the flag `u`."""

_QUANTIFIER: Final = re.compile(r"[*+?]|\{([0-9]+)(?:(,)([0-9]*))?\}")
_NAMED_GROUP: Final = re.compile(r"\?P?<[A-Za-z_$][\w$]*>")
_LOOK_AROUND: Final = re.compile(r"\?<?[=!]")
_FLAGS: Final = re.compile(r"\?(?!\))([a-zA-Z]*)(?:-([a-zA-Z]+))?([:)])")
_POSIX: Final = re.compile(r"\[([:.=])\w{0,20}\1\]")
_RANGE: Final = re.compile(r"-[^\]]", re.DOTALL)
_PROPERTY: Final = re.compile(r"[pP]\{\w+(?:=\w+)?\}", re.ASCII)
_CODE: Final = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]+)\}")
_CONTROL: Final = re.compile(r"c([A-Za-z])|0(?![0-9])")
_LOW_SURROGATE: Final = re.compile(r"\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})")


class PatternError(ValueError):
    """A pattern that can't be translated; the message goes on after "expected"."""


class Translated(msgspec.Struct, frozen=True):
    """A pattern as the library reads it."""

    text: str
    least: int
    """Characters of the shortest match."""


def translate(pattern: str) -> Translated:
    r"""Write a pattern in the library's dialect.

    Of the strings that JSON can write without \u escapes, it matches the same ones.

    Raises:
        PatternError: it is no pattern of ECMA-262, dialects disagree on what it means, or it
            looks around.
    """
    return _Parser(pattern).parse()


class _Mode(msgspec.Struct):
    """The flags that hold at a place; `(?i)` changes them up to the end of its group."""

    dot_all: bool = False
    ignore_case: bool = False


class _Parser:
    """Reads one pattern from its beginning to its end."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0
        self._bracket_in_class = False
        self._needs_unicode = False
        self._lax: PatternError | None = None
        """What the flag `u` would not take, found first."""

    def parse(self) -> Translated:
        text, least = self._alternatives(_Mode())
        if self._at < len(self._pattern):
            raise self._error("no `)` without its `(`")
        if self._lax is not None and self._needs_unicode:
            raise self._lax  # without the flag, \p{L} is the letter p and more
        return Translated(text, least)

    # What reads a part returns its translation and the length of its shortest match.

    def _alternatives(self, mode: _Mode) -> tuple[str, int]:
        branches = [self._sequence(mode)]
        while self._take("|"):
            branches.append(self._sequence(mode))
        return "|".join(text for text, _ in branches), min(least for _, least in branches)

    def _sequence(self, mode: _Mode) -> tuple[str, int]:
        texts, total = [], 0
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            text, least = self._term(mode)
            texts.append(text)
            total += least
        return "".join(texts), total

    def _term(self, mode: _Mode) -> tuple[str, int]:
        text, least, repeatable = self._atom(mode)
        quantifier = _QUANTIFIER.match(self._pattern, self._at)
        if quantifier is None:
            return text, least
        if not repeatable:
            raise self._error("nothing that repeats an anchor or flags")
        self._at = quantifier.end()
        self._take("?")  # lazy or greedy, the same strings match
        if _QUANTIFIER.match(self._pattern, self._at):
            raise self._error("no quantifier after another")
        times, least_times = self._times(quantifier)
        return text + times, least * least_times

    def _times(self, quantifier: re.Match[str]) -> tuple[str, int]:
        low, comma, high = quantifier.groups()
        if low is None:
            return quantifier[0], 1 if quantifier[0] == "+" else 0
        if max(len(low), len(high or "")) > 9:
            raise self._error("quantifiers of at most 9 digits")
        if high and int(low) > int(high):
            raise self._error("a quantifier whose first number is not above its second")
        return f"{{{low}{comma or ''}{high or ''}}}", int(low)

    def _atom(self, mode: _Mode) -> tuple[str, int, bool]:
        """Read what stands before a quantifier; the last value says whether one may follow."""
        character = self._pattern[self._at]
        self._at += 1
        match character:
            case "(":
                return self._group(mode)
            case "[":
                return self._class(mode), 1, True
            case "\\":
                return self._single(mode), 1, True
            case "^" | "$":
                return character, 0, False
            case ".":
                return self._dot(mode), 1, True
            case "*" | "+" | "?":
                raise self._error(f"something before `{character}` that it repeats", -1)
            case "{":
                raise self._error(r"a quantifier as {2}, {2,} or {2,3}, or `\{`", -1)
            case "]" | "}":
                self._note_lax(rf"`\{character}`", -1)
                if character == "]" and self._bracket_in_class:
                    raise self._error(r"`\]`, as a class before it holds a `[`", -1)
        return alone(ord(character)), 1, True

    def _group(self, mode: _Mode) -> tuple[str, int, bool]:
        opening, inner = "(?:", _Mode(mode.dot_all, mode.ignore_case)
        if named := _NAMED_GROUP.match(self._pattern, self._at):
            self._at = named.end()
        elif _LOOK_AROUND.match(self._pattern, self._at):
            raise self._error("no look-around, which can't be enforced", -1)
        elif flags := _FLAGS.match(self._pattern, self._at):
            inner = self._changed(mode, flags[1], flags[2] or "")
            self._at = flags.end()
            opening = "(?i" if inner.ignore_case else "(?-i"
            if flags[3] == ")":
                mode.dot_all, mode.ignore_case = inner.dot_all, inner.ignore_case
                return f"{opening})", 0, False
            opening += ":"
        elif self._pattern.startswith("?", self._at):
            raise self._error("a group that ECMA-262 has", -1)
        self._depth += 1
        if self._depth > MAX_GROUPS:
            raise self._error(f"at most {MAX_GROUPS} groups inside each other", -1)
        text, least = self._alternatives(inner)
        if not self._take(")"):
            raise self._error("a `)` for every `(`")
        self._depth -= 1
        return f"{opening}{text})", least, True

    def _changed(self, mode: _Mode, on: str, off: str) -> _Mode:
        if not set(on + off) <= set("is"):
            raise self._error("no flags but i and s", -1)
        return _Mode(
            ("s" in on or mode.dot_all) and "s" not in off,
            ("i" in on or mode.ignore_case) and "i" not in off,
        )

    def _dot(self, mode: _Mode) -> str:
        class_ = Class(negated=True)
        if not mode.dot_all:
            class_.add(LINE_ENDS)
        return str(class_)

    def _class(self, mode: _Mode) -> str:
        class_ = Class(negated=self._take("^"))
        while not self._take("]"):
            low = self._class_atom(mode)
            if not _RANGE.match(self._pattern, self._at):
                class_.add(low)
                continue
            self._at += 1
            high = self._class_atom(mode)
            if isinstance(low, str) or isinstance(high, str):
                self._note_lax(r"`\-`, or a range between characters")
                for part in (low, ord("-"), high):
                    class_.add(part)
            elif low > high:
                raise self._error("a range whose first character is not above its last")
            else:
                class_.add(low, high)
        return str(class_)

    def _class_atom(self, mode: _Mode) -> int | str:
        """Read a character, or a set as it is written inside a class."""
        if self._at == len(self._pattern):
            raise self._error("a `]` for every `[`")
        character = self._pattern[self._at]
        if character == "[":
            if _POSIX.match(self._pattern, self._at):
                raise self._error("no POSIX class, which ECMA-262 doesn't have")
            self._bracket_in_class = True
        self._at += 1
        if character != "\\":
            return ord(character)
        if self._take("b"):
            return 8
        if self._take("-"):
            return ord("-")
        return self._escape(mode)

    def _single(self, mode: _Mode) -> str:
        """Read an escape outside a class."""
        if self._pattern.startswith(("b", "B"), self._at):
            raise self._error("no look-around for a word's boundary, which can't be enforced", -1)
        escaped = self._escape(mode)
        if isinstance(escaped, int):
            return alone(escaped)
        class_ = Class()
        class_.add(escaped)
        return str(class_)

    def _escape(self, mode: _Mode) -> int | str:
        """Read what follows a backslash: a character, or a set as inside a class."""
        character = self._pattern[self._at : self._at + 1]
        if character in LETTERS:
            self._at += 1
            return LETTERS[character]
        if control := self._match(_CONTROL):
            return ord(control[1]) % 32 if control[1] else 0
        if code := self._match(_CODE):
            self._needs_unicode = self._needs_unicode or code[3] is not None
            return self._code_point(int(code[1] or code[2] or code[3], 16))
        if found := self._match(_PROPERTY):
            if mode.ignore_case:
                raise self._error("no property where case is ignored: dialects differ")
            self._needs_unicode = True
            return f"\\{found[0]}"
        self._at += 1
        return self._itself(character)

    def _itself(self, character: str) -> int:
        if character.isdecimal() or character == "k":
            raise self._error("no back-reference, which can't be enforced", -2)
        if not character or character.isalnum():  # nothing follows, or a letter
            raise self._error(f"an escape that ECMA-262 has, not `\\{character}`", -2)
        if character not in _SYNTAX:
            self._note_lax(f"`{character}` without a backslash", -2)
        return ord(character)

    def _code_point(self, code: int) -> int:
        if 0xD800 <= code < 0xDC00 and (low := self._match(_LOW_SURROGATE)):
            code = 0x10000 + ((code - 0xD800) << 10) + int(low[1], 16) - 0xDC00
        if 0xD800 <= code < 0xE000 or code > 0x10FFFF:
            raise self._error("no lone surrogate and no character beyond 10FFFF")
        return code

    def _match(self, part: re.Pattern[str]) -> re.Match[str] | None:
        found = part.match(self._pattern, self._at)
        if found:
            self._at = found.end()
        return found

    def _take(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        if found:
            self._at += len(text)
        return found

    def _note_lax(self, expected: str, offset: int = 0) -> None:
        self._lax = self._lax or self._error(expected, offset)

    def _error(self, expected: str, offset: int = 0) -> PatternError:
        return PatternError(f"{expected} (at character {self._at + offset + 1})")
