"""Tools, the choice among them and structured answers: checked once, for every dialect.

The client's own path of the field is named in a refusal, so that it can find it in its body.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from app.contract.conversation import Tool
from app.contract.formats import JsonObject, JsonSchema
from app.contract.generation import ToolChoice
from app.errors import InvalidParameter

Mode = Literal["none", "auto", "required"]


def differently_named(tools: Sequence[Tool], where: str) -> Sequence[Tool]:
    """Refuse tools of one name.

    Args:
        tools: those of the request.
        where: the path of a tool's name in the body, with {} for the tool's index.

    Raises:
        InvalidParameter: two have the same name.
    """
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.name in names:
            limit = "a name that no other tool has"
            raise InvalidParameter(where.format(index), tool.name, limit)
        names.add(tool.name)
    return tools


def to_tool_choice(mode: Mode, name: str | None, tools: Sequence[Tool], where: str) -> ToolChoice:
    """Make the choice among tools.

    Args:
        mode: as sent; ignored where there is a name.
        name: the one tool that must be called.
        tools: those of the request.
        where: the path of the name in the body.

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


def allowed_tools(
    tools: Sequence[Tool], mode: Mode, names: Sequence[str], where: str
) -> tuple[Sequence[Tool], ToolChoice]:
    """Leave the tools that may be called: no model is shown others.

    Args:
        tools: those of the request.
        mode: whether one of the allowed ones must be called.
        names: those that may be.
        where: the path of the allowed tools in the body.

    Raises:
        InvalidParameter: one that is allowed isn't there, or a call is required and none is.
    """
    known = [tool.name for tool in tools]
    for index, name in enumerate(names):
        if name not in known:
            limit = f"the name of one of the tools {known}"
            raise InvalidParameter(f"{where}.tools[{index}]", name, limit)
    allowed = [tool for tool in tools if tool.name in names]
    return allowed, to_tool_choice(mode, None, allowed, where)


_RESERVED = {
    *("messages", "tools", "add_generation_prompt", "continue_final_message", "documents"),
    *("bos_token", "eos_token"),
    # names of the template engine: one that stands for something else breaks a template
    *("self", "raise_exception", "strftime_now", "namespace", "range", "dict", "cycler"),
    *("joiner", "lipsum"),
}


def to_options(options: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Check what a client gives a chat template beside the conversation.

    Raises:
        InvalidParameter: a name stands for something that has a field of its own.
    """
    for name, value in options.items():
        if name in _RESERVED:
            limit = "no variable that is the server's to give"
            raise InvalidParameter(f"{where}.{name}"[:200], value, limit)
    return options


def to_format(
    kind: str, schema: dict[str, Any] | None, where: str
) -> JsonSchema | JsonObject | None:
    """Make the response format; None: any text.

    Args:
        kind: text, json_object or json_schema.
        schema: given with json_schema alone.
        where: the path of the schema in the body.

    Raises:
        InvalidParameter: the schema is missing, or is there with another kind.
    """
    if (kind == "json_schema") != (schema is not None):
        limit = "a schema with type json_schema, and none with another type"
        raise InvalidParameter(where, schema, limit)
    if schema is not None:
        return JsonSchema(schema)
    return JsonObject() if kind == "json_object" else None
