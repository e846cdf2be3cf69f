"""Tools, the choice among them, and structured answers: from JSON to generation's records.

Chat nests what responses writes flat; both come out the same here.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from app.contract.conversation import Tool
from app.contract.generation import JsonObject, JsonSchema, ToolChoice
from app.errors import InvalidParameter

Name = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
Schema = Annotated[dict[str, Any], Meta(description="A JSON Schema.")]
Mode = Literal["none", "auto", "required"]


class Function(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that the model may ask to be called."""

    name: Name
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class ChatTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool of a chat."""

    type: Literal["function"]
    function: Function


class FunctionName(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which function."""

    name: str


class ChatNamedTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This tool and no other."""

    type: Literal["function"]
    function: FunctionName


class ResponseTool(Function, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool of a response; strict unless it says otherwise."""

    type: Literal["function"]


class ResponseNamedTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This tool and no other."""

    type: Literal["function"]
    name: str


class NamedSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schema for the answer. It holds whether or not `strict` is set."""

    name: Name
    schema: Schema
    description: str | None = None
    strict: bool | None = None


class ChatFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the answer of a chat is to be."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: NamedSchema | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the text of a response is to be."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Name | None = None
    schema: Schema | None = None
    description: str | None = None
    strict: bool | None = None


def to_tools(functions: Sequence[Function], *, strict: bool, where: str) -> list[Tool]:
    """Make generation's tools.

    Args:
        functions: what the client sent.
        strict: of a function that doesn't say.
        where: the name's path in the body, with {} for the index.

    Raises:
        InvalidParameter: two have the same name.
    """
    names: set[str] = set()
    for index, function in enumerate(functions):
        if function.name in names:
            limit = "a name that no other tool has"
            raise InvalidParameter(where.format(index), function.name, limit)
        names.add(function.name)
    return [
        Tool(
            name=function.name,
            description=function.description,
            parameters=function.parameters or {},
            strict=strict if function.strict is None else function.strict,
        )
        for function in functions
    ]


def to_tool_choice(mode: Mode, name: str | None, tools: Sequence[Tool], where: str) -> ToolChoice:
    """Make generation's choice.

    Args:
        mode: as sent; of no account where there is a name.
        name: the one tool to be called.
        tools: those of the request.
        where: the name's path in the body.

    Raises:
        InvalidParameter: a tool must be called and there is none, or none of that name.
    """
    names = [tool.name for tool in tools]
    if name is not None:
        if name not in names:
            raise InvalidParameter(where, name, f"the name of one of the tools {names}")
        return ToolChoice("required", name)
    if mode == "required" and not names:
        raise InvalidParameter("tool_choice", mode, "tools to choose from")
    return ToolChoice(mode)


def to_format(
    kind: str, schema: dict[str, Any] | None, where: str
) -> JsonSchema | JsonObject | None:
    """Make generation's response format; None: any text.

    Args:
        kind: text, json_object or json_schema.
        schema: of the last one alone.
        where: the schema's path in the body.

    Raises:
        InvalidParameter: the schema is missing, or is there with another kind.
    """
    if (kind == "json_schema") != (schema is not None):
        limit = "a schema with type json_schema, and none with another type"
        raise InvalidParameter(where, schema, limit)
    if schema is not None:
        return JsonSchema(schema)
    return JsonObject() if kind == "json_object" else None
