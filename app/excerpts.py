"""Show values in messages, shortened: a message must not carry a megabyte back to the client."""

from collections.abc import Iterator
from typing import Final

LIMIT: Final = 80
"""Characters."""


def shown(value: object, limit: int = LIMIT) -> str:
    """`repr` of what JSON can hold, shortened; takes no longer for a larger value."""
    text = ""
    for piece in _pieces(value, limit):
        text += piece
        if len(text) > limit:
            return f"{text[: limit - 1]}…"
    return text


def _pieces(value: object, limit: int) -> Iterator[str]:
    """The parts of a value's `repr`, made one by one."""
    if isinstance(value, str) and len(value) > limit:
        yield repr(value[: limit + 1])
    elif isinstance(value, list):
        yield "["
        for index, inner in enumerate(value):
            if index:
                yield ", "
            yield from _pieces(inner, limit)
        yield "]"
    elif isinstance(value, dict):
        yield "{"
        for index, (key, inner) in enumerate(value.items()):
            yield f"{', ' if index else ''}{shown(key, limit)}: "
            yield from _pieces(inner, limit)
        yield "}"
    else:
        yield repr(value)
