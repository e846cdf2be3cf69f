"""Tools and response formats as OpenAI writes them: chat nests what responses writes flat."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from app.contract.conversation import Tool
from app.dialects.kit.body import Body
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.tools import differently_named

Name = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
Schema = Annotated[dict[str, Any], Meta(description="A JSON Schema.")]


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


class ChatNamedTool(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="function",
):
    """This tool and no other."""

    function: FunctionName


class ChatAllowed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of the tools may be called, and whether one must be."""

    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[ChatNamedTool], Meta(min_length=1, max_length=128)]


class ChatAllowedTools(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="allowed_tools",
):
    """Some of the tools and no others."""

    allowed_tools: ChatAllowed


class ResponseTool(Function, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool of a response; strict unless it says otherwise."""

    type: Literal["function"]


class ResponseNamedTool(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="function",
):
    """This tool and no other."""

    name: str


class ResponseAllowedTools(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="allowed_tools",
):
    """Some of the tools and no others."""

    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[ResponseNamedTool], Meta(min_length=1, max_length=128)]


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


def without_foreign_tools(body: Body, passed: PassedOver) -> Body:
    """Leave out tools that no model here can run: none is ever offered one.

    Raises:
        Unsupported: there is one and the server takes none.
    """
    tools = body.get("tools")
    if not isinstance(tools, list):
        return body
    kept = []
    for index, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind != "function":
            reason = "tools here are functions, which the client runs"
            passed.note(f"tools[{index}].type", kind, reason)
        else:
            kept.append(tool)
    return {**body, "tools": kept}


def to_tools(functions: Sequence[Function], *, strict: bool, where: str) -> Sequence[Tool]:
    """Make the contract's tools.

    Args:
        functions: what the client sent.
        strict: whether calls must follow the schema of a function that doesn't say.
        where: the path of a tool's name in the body, with {} for the tool's index.

    Raises:
        InvalidParameter: two have the same name.
    """
    tools = [
        Tool(
            name=function.name,
            description=function.description,
            parameters=function.parameters or {},
            strict=strict if function.strict is None else function.strict,
        )
        for function in functions
    ]
    return differently_named(tools, where)
