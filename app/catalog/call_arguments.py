"""Read the arguments of a tool call that a client sends back, as they were handed out.

A call that was cut off has arguments that end anywhere. What came of them counts: a string ends
where it was cut, a name without a value and half a number are left out. Knows no template.
"""

import json
import math
import re
from typing import Any, Final, NoReturn

from app.errors import InvalidParameter

_FIELD: Final = "messages[].tool_calls[].function.arguments"
# Possessive: keeping the steps of eight megabytes to go back to takes more than a second, in which
# no other thread runs.
_PART: Final = re.compile(
    r"""
    [ \t\n\r]+
    | (?P<open>[{\[])
    | (?P<close>[}\]])
    | (?P<comma>,)
    | (?P<colon>:)
    | (?P<string>"(?:[^"\\]++|\\.)*+")
    | (?P<cut_string>"(?:[^"\\]++|\\.)*+\\?\Z)
    | (?P<word>[^\s"{}\[\],:]+)
    """,
    re.DOTALL | re.VERBOSE,
)
_CUT_WORD: Final = re.compile(
    r"-?[0-9.eE+-]*|t(?:r(?:ue?)?)?|f(?:a(?:l(?:se?)?)?)?|n(?:u(?:ll?)?)?"
)
_CHARACTERS: Final = re.compile(r'"(?:[^"\\]++|\\u[0-9A-Fa-f]{4}|\\[^u])*+')
_HALF_PAIR: Final = re.compile(r"\\u[Dd][89ABab][0-9A-Fa-f]{2}\Z")


def called_arguments(text: str) -> dict[str, Any]:
    """Read arguments, whole or cut off; none at all are an empty object.

    Raises:
        InvalidParameter: they are no beginning of a JSON object, or have a number that no float
            holds or half of a surrogate pair, which nothing could write out again.
    """
    try:
        return _read(text if text.strip() else "{}")
    except (ValueError, TypeError, RecursionError) as error:
        try:
            return _read(_closed(text))
        except (ValueError, TypeError, RecursionError):
            limit = f"the text of a JSON object ({error})"
            raise InvalidParameter(_FIELD, text, limit) from error


def _read(text: str) -> dict[str, Any]:
    value = json.loads(text, parse_float=_finite, parse_constant=_no_number)
    if not isinstance(value, dict):
        raise TypeError("another kind of JSON")
    json.dumps(value, ensure_ascii=False).encode()  # fails for half of a surrogate pair
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"no float holds {text[:20]}")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _closed(text: str) -> str:
    """Close what is open in a text that was cut off, from its last whole value on."""
    closing: list[str] = []
    whole = 0
    """Where the last value, or the last opening bracket, ends."""
    is_name = False
    at = 0
    while part := _PART.match(text, at):
        at = part.end()
        match part.lastgroup:
            case "open":
                closing.append("}" if part[0] == "{" else "]")
                is_name, whole = part[0] == "{", at
            case "close":
                if not closing or closing.pop() != part[0]:
                    raise ValueError("brackets that don't match")
                is_name, whole = False, at
            case "comma":
                is_name = bool(closing) and closing[-1] == "}"
            case "colon":
                is_name = False
            case "string" if not is_name:
                whole = at
            case "word" if at < len(text):
                whole = at
            case "word" if not _CUT_WORD.fullmatch(part[0]):
                break
            case "cut_string" if not is_name:
                characters = _CHARACTERS.match(text, part.start())
                assert characters is not None, "it begins with a quote"
                beginning = _HALF_PAIR.sub("", text[: characters.end()])
                return beginning + '"' + "".join(reversed(closing))
    if part is not None or at < len(text) or not closing:
        raise ValueError("it goes on with what is no JSON")
    return text[:whole] + "".join(reversed(closing))
