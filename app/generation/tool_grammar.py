"""Hold a model to the form of its tool calls, from the first character of a call on.

What is parsed later (`tool_calls`) then can't be malformed, only cut off. Knows nothing of streams.
"""

import json
import re
from collections.abc import Callable
from typing import Final

import msgspec
from tokenizers import Tokenizer

from app.catalog.grammars import Grammar, SchemaText
from app.contract.conversation import Tool
from app.contract.generation import GenerationRequest
from app.errors import InvalidParameter
from app.generation.schema.shape import check_shape
from app.generation.structured import ANY_OBJECT, enforced, json_rule, response_rule
from app.generation.tool_formats import NO_ARGUMENTS, ToolFormat, written

Promised = Callable[[Tool], bool]
"""Whether a call of a tool must follow its schema."""
MAX_CALLS: Final = 16
"""In one answer: a small model would go on calling until its context is full."""


def tool_grammar(format_: ToolFormat, request: GenerationRequest, tokenizer: Tokenizer) -> Grammar:
    """Make the grammar of an answer that may, or must, call tools.

    Where calls are up to the model, any text may come until a call begins (or, with a response
    format, an answer in it). Arguments follow the tool's schema if the tool is strict or a call
    is required; otherwise they are any JSON object, since a tool that is not strict promises no
    more. For the same reason a required call of such a tool may be any object where its schema
    can't be enforced.

    Raises:
        InvalidParameter: a schema that must be enforced can't be, or the request has a response
            format and the model's calls can't be told from JSON.
    """
    for index, tool in enumerate(request.tools):
        check_shape(tool.parameters, _field(index))
    literals = _Literals(format_, tokenizer)
    start, answer_schemas = _start(format_, request, literals)

    def with_tools(promised: Promised) -> Grammar:
        tools, tool_schemas = _tools(format_, request, literals, promised)
        rules = [
            *start,
            f"calls: {literals.write(format_.opening + format_.head)} rest",
            *_rest(format_, literals, parallel=request.parallel_tool_calls),
            *tools,
        ]
        return Grammar("\n".join(rules), (*tool_schemas, *answer_schemas), field="tools")

    promised = with_tools(lambda tool: tool.strict)
    if request.tool_choice.mode != "required" or all(tool.strict for tool in request.tools):
        return promised
    try:
        wanted = with_tools(lambda _: True)
    except InvalidParameter:
        return promised
    return msgspec.structs.replace(wanted, otherwise=promised)


class _Literals:
    """Writes fixed text in Lark, with the format's tokens as tokens where the vocabulary has them.

    Their text would not match them: to a grammar, a special token has none.
    """

    def __init__(self, format_: ToolFormat, tokenizer: Tokenizer) -> None:
        ids = {token: tokenizer.token_to_id(token) for token in format_.tokens}
        self._ids = {token: token_id for token, token_id in ids.items() if token_id is not None}

    def has(self, token: str) -> bool:
        """Whether the text is a single token of the vocabulary."""
        return token in self._ids

    def write(self, text: str) -> str:
        """Write text that may hold some of the tokens."""
        for token, token_id in self._ids.items():
            before, found, after = text.partition(token)
            if found:
                around = [self.write(part) if part else "" for part in (before, after)]
                return f"{around[0]} <[{token_id}]> {around[1]}".strip()
        return json.dumps(text)


def _start(
    format_: ToolFormat, request: GenerationRequest, literals: _Literals
) -> tuple[list[str], list[SchemaText]]:
    """Write the rules of a whole answer, around `calls`."""
    if request.tool_choice.mode == "required":
        return ["start: calls"], []
    if request.response_format is not None:
        if not format_.anywhere:
            limit = "none beside tools: this model's calls can't be told from an answer in JSON"
            raise InvalidParameter("response_format", "given", limit)
        rule, schemas = response_rule(request.response_format, request.format_field)
        return ["start: answer | calls", f"answer: {rule}"], list(schemas)
    if not format_.anywhere:
        return ["start: TEXT | calls", _text_without(format_.marker, before="")], []
    if literals.has(format_.marker):
        return ["start: TEXT | TEXT? calls", _text_without(format_.marker, before="(?s:.*)")], []
    # A lazy lexeme ends at the first marker, and the rest of a call is all that can follow.
    first = (format_.opening + format_.head).removeprefix(format_.marker)
    return [
        f"start: TEXT | trigger {literals.write(first)} rest",
        "TEXT: /(?s:.*)/",
        f"trigger[lazy]: TEXT {json.dumps(format_.marker)}",
    ], []


def _text_without(marker: str, *, before: str) -> str:
    """Write the rule of a text that has no marker after what `before` matches."""
    escaped = re.escape(marker).replace("/", r"\/")
    return f"TEXT: /(?s:.*)/ & ~/{before}{escaped}(?s:.*)/"


def _rest(format_: ToolFormat, literals: _Literals, *, parallel: bool) -> list[str]:
    """Write the rules of everything after the first call's head."""
    closing = literals.write(format_.closing) if format_.closing else ""
    if not parallel or format_.separator is None:
        return [f"rest: call {closing}"]
    return [
        f"rest: call more{{0,{MAX_CALLS - 1}}} {closing}",
        f"more: {literals.write(format_.separator + format_.head)} call",
    ]


def _tools(
    format_: ToolFormat, request: GenerationRequest, literals: _Literals, promised: Promised
) -> tuple[list[str], list[SchemaText]]:
    """Write the rule `call`, a name to a tail, over all tools that may be called.

    Args:
        format_: how calls are written.
        request: the tools and the choice among them.
        literals: writes fixed text.
        promised: whether a tool's arguments have to follow its schema.
    """
    choice = request.tool_choice
    rules: list[str] = []
    names: list[str] = []
    schemas: list[SchemaText] = []
    for index, tool in enumerate(request.tools):
        if choice.name not in (None, tool.name):
            continue
        parameters = ANY_OBJECT
        if promised(tool):
            schema = _parameters(tool, _field(index))
            parameters = json_rule(schema)
            schemas.append(schema)
        names.append(f"tool_{index}")
        name = literals.write(written(tool.name) + format_.middle)
        rules += [f"tool_{index}: {name} arguments_{index}"]
        rules += [f"arguments_{index}: {parameters}"]
    return [f"call: ({' | '.join(names)}) {literals.write(format_.tail)}", *rules], schemas


def _parameters(tool: Tool, field: str) -> SchemaText:
    parameters = {"type": "object", **tool.parameters} if tool.parameters else NO_ARGUMENTS
    if parameters["type"] != "object":
        raise InvalidParameter(f"{field}.type", parameters["type"], "'object'")
    return enforced(parameters, field, annotated=True)


def _field(index: int) -> str:
    return f"tools[{index}].function.parameters"
