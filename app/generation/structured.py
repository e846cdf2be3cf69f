"""Turn a JSON Schema into a grammar whose texts all validate, or refuse it.

What can't be enforced is refused by name, never ignored: by `schema` what the library would pass
over, by the library the rest. Knows nothing of tools; the compiling is that of `catalog.grammars`.

Source: docs/json_schema.md of llguidance, which says what of JSON Schema it enforces.
"""

import json
from typing import Any, Final

from app.catalog.grammars import Grammar, SchemaText
from app.contract.generation import JsonObject, JsonSchema
from app.generation.schema.document import Document
from app.generation.schema.translation import translated

_OPTIONS: Final = {
    # Once wherever JSON allows white space. A small model goes on with blanks for ever otherwise.
    "whitespace_pattern": r"\n?[ ]{0,16}",
    # Without \u: "\u0061" is the key "a" by another name, and would go round its schema.
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}


def response_grammar(response_format: JsonSchema | JsonObject) -> Grammar:
    """Make the grammar of an answer.

    Raises:
        InvalidParameter: the schema is beyond a limit or asks what can't be enforced.
    """
    rule, schemas = response_rule(response_format)
    return Grammar(f"start: {rule}", schemas)


def response_rule(
    response_format: JsonSchema | JsonObject,
) -> tuple[str, tuple[SchemaText, ...]]:
    """Write the right side of a Lark rule for an answer, with the schemas to be checked first.

    Raises:
        InvalidParameter: the schema is beyond a limit or asks what can't be enforced.
    """
    if isinstance(response_format, JsonObject):
        return ANY_OBJECT, ()
    schema = enforced(response_format.schema, "response_format")
    return json_rule(schema), (schema,)


def enforced(schema: dict[str, Any], field: str) -> SchemaText:
    """Write a schema as it is enforced.

    Args:
        schema: as the client sent it.
        field: which one of the request is blamed for it.

    Raises:
        InvalidParameter: it is too large, nested too deeply, or has a keyword or a value that
            can't be enforced, as far as is seen before it is compiled.
    """
    return SchemaText(field, schema, _with_options(translated(Document(schema, field))))


def json_rule(schema: SchemaText) -> str:
    """Write the right side of a Lark rule that matches what validates."""
    return f"%json {schema.text}"


def _with_options(schema: dict[str, Any]) -> str:
    # The order of keys stays: it is the order of an object's properties.
    return json.dumps({**schema, "x-guidance": _OPTIONS})


ANY_OBJECT: Final = f"%json {_with_options({'type': 'object'})}"
"""The right side of a Lark rule that matches any JSON object."""
