"""Turn a JSON Schema into a grammar whose texts all validate, or refuse it.

What can't be enforced is refused by name, never ignored: by the walk here what the library would
pass over, by the library the rest. Knows nothing of tools; the compiling is `catalog.grammars`'.

Source: docs/json_schema.md of llguidance, which says what of JSON Schema it enforces.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from app.catalog.grammars import Grammar, SchemaText
from app.contract.generation import JsonObject, JsonSchema
from app.errors import InvalidParameter

MAX_SCHEMA_CHARACTERS: Final = 65_536
MAX_NESTING: Final = 32
"""Schemas inside schemas; the library's JSON reader ends at 128 levels of JSON."""
MAX_LEAST: Final = 10_000
"""Of minItems, minLength, minProperties: an answer must be able to come to its end."""

ANY_OBJECT: Final[dict[str, Any]] = {"type": "object"}

_OPTIONS: Final = {
    # Once wherever JSON allows white space. A small model goes on with blanks for ever otherwise.
    "whitespace_pattern": r"\n?[ ]{0,16}",
    # Without \u: "\u0061" is the key "a" by another name, and would go round its schema.
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}

_ONE: Final = {"items", "additionalProperties"}
_MANY: Final = {"anyOf", "oneOf", "allOf", "prefixItems"}
_NAMED: Final = {"properties", "patternProperties", "$defs", "definitions"}
_PLAIN: Final = {
    *("$ref", "$schema", "$id", "id", "$anchor", "type", "enum", "const", "required"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength"),
    *("pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "multipleOf",
}
_REMARKS: Final = {
    *("title", "description", "default", "examples", "example", "deprecated", "readOnly"),
    *("writeOnly", "$comment", "discriminator"),
}
"""Say nothing about what is valid. `discriminator` only helps to find the branch of a oneOf."""
_KNOWN: Final = _ONE | _MANY | _NAMED | _PLAIN | _REMARKS


def response_grammar(response_format: JsonSchema | JsonObject) -> Grammar:
    """Make the grammar of an answer.

    Raises:
        InvalidParameter: the schema is beyond a limit or asks what can't be enforced.
    """
    if isinstance(response_format, JsonObject):
        return Grammar(f"start: {json_rule(ANY_OBJECT)}")
    schema = checked(response_format.schema, "response_format")
    return Grammar(f"start: {json_rule(schema)}", (schema_text(schema, "response_format"),))


def json_rule(schema: dict[str, Any]) -> str:
    """Write the right side of a Lark rule that matches what validates."""
    return f"%json {_with_options(schema)}"


def schema_text(schema: dict[str, Any], field: str) -> SchemaText:
    """Make what `catalog.grammars` checks."""
    return SchemaText(field, schema, _with_options(schema))


def checked(schema: dict[str, Any], field: str) -> dict[str, Any]:
    """Give the schema back if everything in it can be enforced, as far as is seen here.

    Raises:
        InvalidParameter: it is too large, nested too deeply, or has a keyword that we don't know.
    """
    _walk(schema, field, 1)
    size = len(json.dumps(schema))
    if size > MAX_SCHEMA_CHARACTERS:
        limit = f"a schema of at most {MAX_SCHEMA_CHARACTERS} characters, not {size}"
        raise InvalidParameter(field, schema, limit)
    return schema


def _with_options(schema: dict[str, Any]) -> str:
    # The order of keys stays: it is the order of an object's properties.
    return json.dumps({**schema, "x-guidance": _OPTIONS})


def _walk(schema: object, where: str, depth: int) -> None:
    """Check one schema and those inside it."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise _refused(where, schema, "a schema: an object, true or false")
    if depth > MAX_NESTING:
        raise _refused(where, schema, f"at most {MAX_NESTING} schemas inside each other")
    if unknown := sorted(schema.keys() - _KNOWN):
        limit = f"no keyword that can't be enforced, as {', '.join(unknown[:5])}"
        raise _refused(where, schema, limit)
    _check_least(schema, where)
    for key, value in schema.items():
        if key in _ONE | _MANY | _NAMED:
            for path, part in _parts(key, value, f"{where}.{key}"):
                _walk(part, path, depth + 1)
        else:
            _check_values(value, f"{where}.{key}", MAX_NESTING)


def _parts(key: str, value: object, where: str) -> Iterator[tuple[str, object]]:
    """The schemas that a keyword holds, and where they are."""
    if key in _NAMED:
        if not isinstance(value, dict):
            raise _refused(where, value, "an object of schemas")
        yield from ((f"{where}.{name}", part) for name, part in value.items())
    elif isinstance(value, list):  # `items` too, before draft 2020-12
        yield from ((f"{where}[{index}]", part) for index, part in enumerate(value))
    elif key in _ONE:
        yield where, value
    else:
        raise _refused(where, value, "a list of schemas")


def _check_least(schema: dict[str, Any], where: str) -> None:
    for key in ("minItems", "minLength", "minProperties"):
        value = schema.get(key, 0)
        if isinstance(value, int | float) and value > MAX_LEAST:
            raise _refused(f"{where}.{key}", value, f"at most {MAX_LEAST}")
    # Keys beyond `properties` may come twice in the grammar, and twice the same key is one.
    required = schema.get("required")
    named = len(set(required)) if isinstance(required, list) and _hashable(required) else 0
    least = schema.get("minProperties", 0)
    if isinstance(least, int | float) and least > named + 1:
        limit = f"at most one more than `required` names ({named})"
        raise _refused(f"{where}.minProperties", least, limit)


def _hashable(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _check_values(value: object, where: str, left: int) -> None:
    """Bound the nesting of what is no schema, before anything recurses into it."""
    if not left:
        raise _refused(where, "nested values", f"at most {MAX_NESTING} levels of nesting")
    for inner in value.values() if isinstance(value, dict) else ():
        _check_values(inner, where, left - 1)
    for inner in value if isinstance(value, list) else ():
        _check_values(inner, where, left - 1)


def _refused(where: str, value: object, limit: str) -> InvalidParameter:
    # names out of the schema are in the path, and may be as long as it
    return InvalidParameter(where if len(where) <= 250 else f"{where[:249]}…", value, limit)
