"""Measure a JSON value before anything recurses into it, copies it or writes it out."""

from typing import Final

MAX_LEVELS: Final = 128
"""Lists and objects inside each other; the grammar library reads no more."""


def json_size(value: object, limit: int) -> int:
    """Count the characters of a value's JSON, without escapes and white space.

    Takes no longer than `limit` characters take, however large or deep the value is.

    Args:
        value: what JSON can hold.
        limit: counting ends once it is passed.

    Returns:
        The count; some number above `limit` if there are more, or more than MAX_LEVELS levels.
    """
    size = 0
    waiting = [(value, 1)]
    while waiting and size <= limit:
        part, level = waiting.pop()
        if isinstance(part, str):
            size += len(part) + 2
        elif isinstance(part, dict | list):
            size += len(part) + 2
            if level > MAX_LEVELS or size > limit:  # so many parts are not even listed
                return limit + 1
            if isinstance(part, dict):
                size += sum(len(name) + 3 for name in part)
            inner = part.values() if isinstance(part, dict) else part
            waiting += [(value, level + 1) for value in inner]
        else:
            size += len(repr(part))
    return size
