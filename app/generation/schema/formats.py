"""Formats of strings that the grammar library enforces less strictly than validators do.

Each is a pattern in the library's dialect that takes the place of its own.
"""

from typing import Final

_OFFSET: Final = r"(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
# A leap second is valid at midnight in UTC only; there is no need to write one.
_TIME: Final = rf"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?{_OFFSET}"
_LEAP_YEAR: Final = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE: Final = (
    r"(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    rf"|{_LEAP_YEAR}-02-29)"
)

_LETTER: Final = "[0-9A-Za-z]"
_INNER: Final = "[0-9A-Za-z-]"


def _label(most: int) -> str:
    """Write a host name's label of at most so many characters, 5 or more."""
    # Two hyphens in the third and fourth place are for encoded names, which must decode.
    return (
        rf"(?:{_LETTER}(?:{_INNER}?{_LETTER})?|{_LETTER}{_INNER}{{2}}{_LETTER}"
        rf"|{_LETTER}{_INNER}(?:{_LETTER}{_INNER}|-{_LETTER}){_INNER}{{0,{most - 5}}}{_LETTER})"
    )


def _email(local: str, host: str) -> str:
    return rf"^{local}@(?:{host}|\[{_BYTE}(?:\.{_BYTE}){{3}}\])$"


_BYTE: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_ATOM: Final = r"[0-9A-Za-z!#$%&'*+\-/=?^_`{|}~]"
# Of 253 characters in all and 64 before an @, more than the library can count to. These shapes
# keep to it by themselves: three labels of any length, one and seven shorter ones, or 16.
_HOST: Final = (
    rf"(?:{_label(63)}(?:\.{_label(63)}){{0,2}}|{_label(63)}(?:\.{_label(26)}){{0,7}}"
    rf"|{_label(14)}(?:\.{_label(14)}){{0,15}})"
)
_LOCAL: Final = (
    rf"(?:{_ATOM}{{1,64}}|{_ATOM}{{1,31}}\.{_ATOM}{{1,32}}"
    rf"|{_ATOM}{{1,20}}(?:\.{_ATOM}{{1,21}}){{2}}|{_ATOM}{{1,8}}(?:\.{_ATOM}{{1,7}}){{0,7}})"
)
_SIMPLE_HOST: Final = rf"{_label(32)}(?:\.{_label(32)}){{0,3}}"
_SIMPLE_LOCAL: Final = rf"{_ATOM}{{1,20}}(?:\.{_ATOM}{{1,21}}){{0,2}}"

FORMATS: Final = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}[tT]{_TIME}$",
    "hostname": f"^{_HOST}$",
    "email": _email(_LOCAL, _HOST),
}
BESIDE_A_PATTERN: Final = FORMATS | {
    "hostname": f"^{_SIMPLE_HOST}$",
    "email": _email(_SIMPLE_LOCAL, _SIMPLE_HOST),
}
"""Whether two patterns have a text in common must not take the library too long to tell."""
LONGEST_BESIDE_A_PATTERN: Final = {"hostname": 4 * 32 + 3, "email": 64 + 1 + 4 * 32 + 3}
"""What they keep to by themselves."""
KNOWN_TO_THE_LIBRARY: Final = {"duration", "ipv4", "ipv6", "uri", "uuid"}
"""Formats that it enforces by itself."""
UNENFORCED_FORMATS: Final = {
    *("idn-email", "idn-hostname", "iri", "iri-reference", "uri-reference", "uri-template"),
    *("json-pointer", "relative-json-pointer", "regex"),
}
"""Formats of JSON Schema that nothing enforces. Any other name is an annotation: int64, phone."""
