"""How a model writes tool calls, and how tools are shown to one whose template has none.

A format is fixed text around a name and the arguments, exactly as the model's template writes
calls. Knows nothing of grammars (`tool_grammar`) or streams.
"""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

import msgspec

from app.catalog.chat_template import ChatTemplate
from app.contract.conversation import ChatMessage, Tool

NO_ARGUMENTS: Final[dict[str, Any]] = {
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


def _description(tools: Sequence[Tool]) -> str:
    lines = []
    for tool in tools:
        known: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            known["description"] = tool.description
        lines.append(
            json.dumps({**known, "parameters": tool.parameters or NO_ARGUMENTS}, ensure_ascii=False)
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
