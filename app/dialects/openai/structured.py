"""Structured output under the names that it has in OpenAI's API, vLLM, SGLang and llama.cpp."""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from app.contract.formats import Following, JsonObject, JsonSchema, Matching, OneOf, ResponseFormat
from app.dialects.kit.tools import to_format
from app.dialects.openai.sampling import Sampling
from app.dialects.openai.tools import ChatFormat
from app.errors import InvalidParameter

MOST_TEXTS: Final = 1000
MOST_OF_A_SCHEMA: Final = 262_144
"""Characters of a schema that is sent as a text, four times what a schema may have: white space."""
Schema = dict[str, Any] | str
Pattern = Annotated[str, Meta(min_length=1, max_length=8192)]
Texts = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=4096)]],
    Meta(min_length=1, max_length=MOST_TEXTS),
]


class StructuredOutputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the answer is to be, as vLLM has it: one of these."""

    json: Annotated[Schema | None, Meta(description="A JSON Schema, or its text.")] = None
    regex: Annotated[Pattern | None, Meta(description="Matches the whole answer.")] = None
    choice: Texts | None = None
    grammar: Annotated[str | None, Meta(description="In Lark or GBNF.")] = None
    json_object: bool | None = None


class Structured(Sampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that say what the answer is to be; at most one of them."""

    response_format: ChatFormat = ChatFormat()
    structured_outputs: StructuredOutputs | None = None
    guided_json: Annotated[Schema | None, Meta(description="As structured_outputs.json.")] = None
    guided_regex: Pattern | None = None
    guided_choice: Texts | None = None
    guided_grammar: str | None = None
    json_schema: Annotated[Schema | None, Meta(description="As llama.cpp and SGLang have it.")] = (
        None
    )
    regex: Annotated[Pattern | None, Meta(description="As SGLang has it.")] = None
    ebnf: Annotated[str | None, Meta(description="As SGLang has it.")] = None
    grammar: Annotated[str | None, Meta(description="As llama.cpp has it.")] = None

    def wanted_format(self) -> tuple[ResponseFormat | None, str]:
        """Return what the answer is to be, and the field that says so.

        Raises:
            InvalidParameter: two fields say it, or one says nothing that can be read.
        """
        named = self.response_format.json_schema
        wanted = to_format(
            self.response_format.type,
            None if named is None else named.schema,
            "response_format.json_schema",
        )
        outputs = self.structured_outputs or StructuredOutputs()
        found: list[tuple[ResponseFormat, str]] = []
        if wanted is not None:
            found.append((wanted, "response_format"))
        if outputs.json_object:
            found.append((JsonObject(), "structured_outputs.json_object"))
        for field, schema in (
            ("structured_outputs.json", outputs.json),
            ("guided_json", self.guided_json),
            ("json_schema", self.json_schema),
        ):
            if schema is not None:
                found.append((JsonSchema(_schema(schema, field)), field))
        for field, pattern in (
            ("structured_outputs.regex", outputs.regex),
            ("guided_regex", self.guided_regex),
            ("regex", self.regex),
        ):
            if pattern is not None:
                found.append((Matching(pattern), field))
        for field, texts in (
            ("structured_outputs.choice", outputs.choice),
            ("guided_choice", self.guided_choice),
        ):
            if texts is not None:
                found.append((OneOf(tuple(texts)), field))
        for field, grammar in (
            ("structured_outputs.grammar", outputs.grammar),
            ("guided_grammar", self.guided_grammar),
            ("ebnf", self.ebnf),
            ("grammar", self.grammar),
        ):
            if grammar is not None:
                found.append((Following(grammar), field))
        if len(found) > 1:
            raise InvalidParameter(found[1][1], "given", f"none beside {found[0][1]}")
        return found[0] if found else (None, "response_format")


def _schema(schema: Schema, field: str) -> dict[str, Any]:
    if isinstance(schema, dict):
        return schema
    if len(schema) > MOST_OF_A_SCHEMA:  # its values were not counted with the body's
        limit = f"a text of at most {MOST_OF_A_SCHEMA} characters"
        raise InvalidParameter(field, schema, limit)
    try:
        return msgspec.json.decode(schema, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidParameter(field, schema, "a JSON Schema, or its text") from error
