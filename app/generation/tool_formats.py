"""How a model writes tool calls, and how tools are shown to one whose template has none.

A format is fixed text around a name and the arguments, exactly as the model's template writes
calls. The grammar holds the model to it as soon as a call begins, so what is parsed later
(`tool_calls`) can't be malformed, only cut off. Knows nothing of streams.
"""

import json
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
from tokenizers import Tokenizer

from app.catalog.chat_template import ChatTemplate
from app.catalog.grammars import Grammar, SchemaText
from app.contract.conversation import ChatMessage, Tool
from app.contract.generation import GenerationRequest
from app.errors import InvalidParameter
from app.generation.structured import ANY_OBJECT, enforced, json_rule, response_rule

MAX_CALLS: Final = 16
"""In one answer: a small model would go on calling until its context is full."""
_NO_ARGUMENTS: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}


class ToolFormat(msgspec.Struct, frozen=True):
    """`opening`, then calls with `separator` between them, then `closing`.

    A call is `head`, the name, `middle`, the arguments' JSON, `tail`.
    """

    name: str
    marker: str
    """What begins a call and never an ordinary text."""
    head: str
    middle: str
    tail: str
    separator: str | None
    """None: one call per answer."""
    opening: str = ""
    closing: str = ""
    anywhere: bool = True
    """False: a call is the whole answer or none."""
    tokens: tuple[str, ...] = ()
    """Parts that are single tokens in some vocabularies."""
    short_ids: bool = False
    """The template refuses ids that are not nine letters and digits."""


HERMES: Final = ToolFormat(
    name="hermes",
    marker="<tool_call>",
    head='<tool_call>\n{"name": "',
    middle='", "arguments": ',
    tail="}\n</tool_call>",
    separator="\n",
    tokens=("<tool_call>", "</tool_call>"),
)
LLAMA: Final = ToolFormat(
    name="llama",
    marker='{"name": "',
    head='{"name": "',
    middle='", "parameters": ',
    tail="}",
    separator=None,
    anywhere=False,
)
MISTRAL: Final = ToolFormat(
    name="mistral",
    marker="[TOOL_CALLS]",
    head='{"name": "',
    middle='", "arguments": ',
    tail="}",
    separator=", ",
    opening="[TOOL_CALLS] [",
    closing="]",
    tokens=("[TOOL_CALLS]",),
    short_ids=True,
)


def native_format(template: ChatTemplate) -> ToolFormat | None:
    """Find the format that a template was written for, by what its source contains.

    `[TOOL_CALLS]` is Mistral's (not with `[ARGS]`, its later form), `<tool_call>` that of Hermes
    and Qwen (not with `<function=`, Qwen-Coder's XML), `"parameters": ` Llama 3.1's.

    Returns:
        None: the template shows no tools, or its format is another one. Then tools are described
        in a system text of ours and called as Hermes does, see `in_plain_turns`.
    """
    source = template.source
    if not template.takes_tools:
        return None
    if "[TOOL_CALLS]" in source:
        return None if "[ARGS]" in source else MISTRAL
    if "<tool_call>" in source:
        return None if "<function=" in source else HERMES
    return LLAMA if '"parameters": ' in source else None


def written(name: str) -> str:
    """Write a tool's name as it stands inside JSON's quotes."""
    return json.dumps(name, ensure_ascii=False)[1:-1]


def in_plain_turns(
    messages: Sequence[ChatMessage], tools: Sequence[Tool], *, in_system: bool = True
) -> list[ChatMessage]:
    """Write tools, calls and results as ordinary text, for a template that has no place for them.

    Args:
        messages: may hold calls and results.
        tools: described before all, if there are some.
        in_system: describe them in the system's turn; else in the first user's.
    """
    turns: list[ChatMessage] = []
    # the results of several calls are one turn: templates want turns of users and assistants
    for is_tool, run in groupby(messages, key=lambda message: message.role == "tool"):
        if is_tool:
            results = [f"<tool_response>\n{result.text}\n</tool_response>" for result in run]
            turns.append(ChatMessage.of("user", "\n".join(results)))
        else:
            turns += [_in_text(message) for message in run]
    if not tools:
        return turns
    text = _description(tools)
    takers = ("system", "developer") if in_system else ("user",)
    for index, turn in enumerate(turns):
        if turn.role in takers:
            parts = (turn.text, text) if in_system else (text, turn.text)
            turns[index] = ChatMessage.of(turn.role, "\n\n".join(parts))
            return turns
    return [ChatMessage.of(takers[0], text), *turns]


def _in_text(message: ChatMessage) -> ChatMessage:
    """Write a message's calls into its text."""
    calls = [
        HERMES.head + written(call.name) + HERMES.middle + (call.arguments or "{}") + HERMES.tail
        for call in message.tool_calls
    ]
    texts = [message.text, *calls] if message.text else calls
    return ChatMessage.of(message.role, "\n".join(texts))


def tool_grammar(format_: ToolFormat, request: GenerationRequest, tokenizer: Tokenizer) -> Grammar:
    """Make the grammar of an answer that may, or must, call tools.

    Where calls are up to the model, any text may come until a call begins (or, with a response
    format, an answer in it). Arguments follow the tool's schema if the tool is strict or a call
    is required; otherwise they are any JSON object, since a tool that is not strict promises no
    more.

    Raises:
        InvalidParameter: a schema that must be enforced can't be, or the request has a response
            format and the model's calls can't be told from JSON.
    """
    literals = _Literals(format_, tokenizer)
    tools, tool_schemas = _tools(format_, request, literals)
    start, answer_schemas = _start(format_, request, literals)
    rules = [
        *start,
        f"calls: {literals.write(format_.opening + format_.head)} rest",
        *_rest(format_, literals, parallel=request.parallel_tool_calls),
        *tools,
    ]
    return Grammar("\n".join(rules), (*tool_schemas, *answer_schemas), field="tools")


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
        rule, schemas = response_rule(request.response_format)
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
    format_: ToolFormat, request: GenerationRequest, literals: _Literals
) -> tuple[list[str], list[SchemaText]]:
    """Write the rule `call`, a name to a tail, over all tools that may be called."""
    choice = request.tool_choice
    rules: list[str] = []
    names: list[str] = []
    schemas: list[SchemaText] = []
    for index, tool in enumerate(request.tools):
        if choice.name not in (None, tool.name):
            continue
        parameters = ANY_OBJECT
        if tool.strict or choice.mode == "required":
            schema = _parameters(tool, f"tools[{index}].function.parameters")
            parameters = json_rule(schema)
            schemas.append(schema)
        names.append(f"tool_{index}")
        name = literals.write(written(tool.name) + format_.middle)
        rules += [f"tool_{index}: {name} arguments_{index}"]
        rules += [f"arguments_{index}: {parameters}"]
    return [f"call: ({' | '.join(names)}) {literals.write(format_.tail)}", *rules], schemas


def _parameters(tool: Tool, field: str) -> SchemaText:
    parameters = {"type": "object", **tool.parameters} if tool.parameters else _NO_ARGUMENTS
    if parameters["type"] != "object":
        raise InvalidParameter(f"{field}.type", parameters["type"], "'object'")
    return enforced(parameters, field)


def _description(tools: Sequence[Tool]) -> str:
    lines = []
    for tool in tools:
        known: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            known["description"] = tool.description
        lines.append(
            json.dumps(
                {**known, "parameters": tool.parameters or _NO_ARGUMENTS}, ensure_ascii=False
            )
        )
    form = HERMES.head + "<its name>" + HERMES.middle + "<its arguments, a JSON object>"
    return "\n".join(
        [
            "These functions can be called, each described on a line:",
            *lines,
            "To call one, write exactly this:",
            form + HERMES.tail,
            "Its result comes back between <tool_response> and </tool_response>.",
            "When no function is needed, answer in plain words.",
        ]
    )
