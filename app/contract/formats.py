"""What a whole answer has to be, where the model is held to a form."""

from typing import Any

import msgspec


class JsonSchema(msgspec.Struct, frozen=True, tag="json_schema"):
    """The answer is JSON that validates against the schema."""

    schema: dict[str, Any]


class JsonObject(msgspec.Struct, frozen=True, tag="json_object"):
    """The answer is any JSON object."""


class Matching(msgspec.Struct, frozen=True, tag="regex"):
    """The answer as a whole matches a regular expression, as ECMA-262 and Rust both read it."""

    pattern: str


class OneOf(msgspec.Struct, frozen=True, tag="choice"):
    """The answer is one of these texts."""

    texts: tuple[str, ...]


class Following(msgspec.Struct, frozen=True, tag="grammar"):
    """The answer follows a grammar: in llguidance's Lark, or in GBNF as llama.cpp writes it."""

    grammar: str


ResponseFormat = JsonSchema | JsonObject | Matching | OneOf | Following
"""What the whole answer has to be."""
