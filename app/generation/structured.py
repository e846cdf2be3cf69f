"""Turn what an answer is to be into a grammar whose texts all are, or refuse it.

What can't be enforced is refused by name, never ignored: by `schema` what the library would pass
over, by the library the rest. Knows nothing of tools; the compiling is that of `catalog.grammars`.

Source: docs/json_schema.md of llguidance, which says what of JSON Schema it enforces.
"""

import json
from typing import Any, Final

from app.catalog.grammars import Grammar, SchemaText, lark_of
from app.contract.formats import Following, JsonObject, JsonSchema, Matching, OneOf, ResponseFormat
from app.errors import InvalidParameter
from app.generation.schema.document import Document
from app.generation.schema.patterns import PatternError, translate
from app.generation.schema.translation import translated

MAX_GRAMMAR: Final = 16_384
"""Characters of a grammar that a client wrote."""
_OPTIONS: Final = {
    # Once wherever JSON allows white space. A small model goes on with blanks for ever otherwise.
    "whitespace_pattern": r"\n?[ ]{0,16}",
    # Without \u: "\u0061" is the key "a" by another name, and would go round its schema.
    "json_allowed_escapes": 'nrbtf\\"',
    "lenient": False,
    "coerce_one_of": False,
}


def response_grammar(response_format: ResponseFormat, field: str = "response_format") -> Grammar:
    """Make the grammar of an answer.

    Raises:
        InvalidParameter: what is asked is beyond a limit or can't be enforced.
    """
    rule, schemas = response_rule(response_format, field)
    return Grammar(f"start: {rule}", schemas, field=field)


def response_rule(
    response_format: ResponseFormat, field: str
) -> tuple[str, tuple[SchemaText, ...]]:
    """Write the right side of a Lark rule for an answer, with the schemas to be checked first.

    Args:
        response_format: what the answer is to be.
        field: which one of the request is blamed for it.

    Raises:
        InvalidParameter: what is asked is beyond a limit or can't be enforced.
    """
    match response_format:
        case JsonObject():
            return ANY_OBJECT, ()
        case JsonSchema(schema):
            text = enforced(schema, field)
            return json_rule(text), (text,)
        case Matching(pattern):
            return _matching(pattern, field)
        case OneOf(texts):
            return f"({' | '.join(json.dumps(text) for text in texts)})", ()
        case Following(grammar):
            return _following(grammar, field)


def _matching(pattern: str, field: str) -> tuple[str, tuple[SchemaText, ...]]:
    try:
        # anchored: the whole answer is to match, not a part of it
        text = translate(f"^(?:{pattern})$").text
    except PatternError as error:
        raise InvalidParameter(field, pattern, str(error)) from error
    rule = "/" + text.removeprefix("^").removesuffix("$").replace("/", r"\/") + "/"
    return rule, (SchemaText(field, pattern, f"start: {rule}", lark=True),)


def _following(grammar: str, field: str) -> tuple[str, tuple[SchemaText, ...]]:
    if len(grammar) > MAX_GRAMMAR:
        limit = f"a grammar of at most {MAX_GRAMMAR} characters"
        raise InvalidParameter(field, "a larger one", limit)
    lark = grammar
    if "::=" in grammar:
        try:
            lark = lark_of(grammar)
        except ValueError as error:
            raise InvalidParameter(field, grammar, f"a grammar in GBNF or Lark: {error}") from error
    return f"%lark {{\n{lark}\n}}", (SchemaText(field, grammar, lark, lark=True),)


def enforced(schema: dict[str, Any], field: str, *, annotated: bool = False) -> SchemaText:
    """Write a schema as it is enforced.

    Args:
        schema: as the client sent it.
        field: which one of the request is blamed for it.
        annotated: whether keywords that nobody knows are annotations, and no typing errors.

    Raises:
        InvalidParameter: it is too large, nested too deeply, or has a keyword or a value that
            can't be enforced, as far as is seen before it is compiled.
    """
    document = Document(schema, field, annotated=annotated)
    return SchemaText(field, schema, _with_options(translated(document)))


def json_rule(schema: SchemaText) -> str:
    """Write the right side of a Lark rule that matches what validates."""
    return f"%json {schema.text}"


def _with_options(schema: dict[str, Any]) -> str:
    # The order of keys stays: it is the order of an object's properties.
    return json.dumps({**schema, "x-guidance": _OPTIONS})


ANY_OBJECT: Final = f"%json {_with_options({'type': 'object'})}"
"""The right side of a Lark rule that matches any JSON object."""
