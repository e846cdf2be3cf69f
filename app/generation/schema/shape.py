"""Say whether a value is a JSON Schema at all, whatever of it can be enforced.

Looks at the shape of the keywords that JSON Schema defines, all through it. Any other keyword is
an annotation. Knows no limits: a body has its own.
"""

from typing import Any

from app.errors import InvalidParameter
from app.generation.schema.document import (
    HOLDS_MANY,
    HOLDS_NAMED,
    HOLDS_ONE,
    SHAPES,
    TYPES,
    place_of,
)


def check_shape(schema: dict[str, Any], field: str) -> None:
    """Refuse what is no JSON Schema.

    Args:
        schema: as a client sent it.
        field: the one that is blamed.

    Raises:
        InvalidParameter: the first keyword whose value doesn't fit it, by its place.
    """
    waiting: list[tuple[tuple[str | int, ...], object]] = [((), schema)]
    while waiting:
        pointer, part = waiting.pop()
        if isinstance(part, bool):
            continue
        if not isinstance(part, dict):
            limit = "a schema: an object, true or false"
            raise InvalidParameter(place_of(field, pointer), part, limit)
        for key, value in part.items():
            at = (*pointer, key)
            if key in SHAPES and not SHAPES[key][0](value):
                raise InvalidParameter(place_of(field, at), value, SHAPES[key][1])
            if key == "type":
                names = [value] if isinstance(value, str) else value
                if wrong := [name for name in names if name not in TYPES]:
                    limit = f"one of {', '.join(sorted(TYPES))}"
                    raise InvalidParameter(place_of(field, at), wrong[0], limit)
            waiting += _parts(key, value, at, field)


def _parts(
    key: str, value: object, at: tuple[str | int, ...], field: str
) -> list[tuple[tuple[str | int, ...], object]]:
    """Give the schemas that a keyword holds, with the way to them."""
    if key in HOLDS_NAMED:
        if not isinstance(value, dict):
            raise InvalidParameter(place_of(field, at), value, "an object of schemas")
        return [((*at, name), part) for name, part in value.items()]
    if key in HOLDS_MANY and not isinstance(value, list):
        raise InvalidParameter(place_of(field, at), value, "a list of schemas")
    if isinstance(value, list) and (key in HOLDS_MANY or key == "items"):
        return [((*at, index), part) for index, part in enumerate(value)]
    return [(at, value)] if key in HOLDS_ONE else []
