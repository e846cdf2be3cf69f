"""Anthropic's turns and their blocks, and the turns of the contract that they mean.

A user's turn may hold results of tools: each is a turn of its own here, before the rest. Turns of
one role that follow each other are one.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from app.contract.conversation import ChatMessage, TextPart, ToolCall
from app.errors import InvalidParameter, Unsupported

TEXT_ALONE: Final = "models here read text alone"
CALL_PREFIX: Final = "toolu_"
_OUR_PREFIX: Final = "call_"


class SystemText(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the system prompt."""

    type: Literal["text"]
    text: str


class ResultBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a tool's result: text, or a tool that is to be known from now on."""

    type: str
    text: str | None = None
    tool_name: str | None = None


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a turn: text, thinking, tool_use or tool_result."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[ResultBlock] | None = None
    is_error: Annotated[bool | None, Meta(description="Taken; the content says it.")] = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


def to_messages(
    system: str | Sequence[SystemText], messages: Sequence[Message]
) -> list[ChatMessage]:
    """Make generation's turns.

    Raises:
        InvalidParameter, Unsupported: a block that its role doesn't allow, or that is not text.
    """
    texts = [system] if isinstance(system, str) else [part.text for part in system]
    parts = tuple(TextPart(text) for text in texts if text)
    # turns of one role are put together at the end: one by one takes the square of their number
    groups = [[ChatMessage("system", parts)]] if parts else []
    called: set[str] = set()
    for index, message in enumerate(messages):
        for turn in _turns(message, f"messages[{index}].content", called):
            if groups and groups[-1][0].role == turn.role != "tool":
                groups[-1].append(turn)
            else:
                groups.append([turn])
    return [group[0] if len(group) == 1 else _merged(group) for group in groups]


def _merged(turns: Sequence[ChatMessage]) -> ChatMessage:
    return ChatMessage(
        turns[0].role,
        tuple(part for turn in turns for part in turn.content),
        tuple(call for turn in turns for call in turn.tool_calls),
        reasoning=_joined([turn.reasoning for turn in turns]),
    )


def is_beginning(turn: ChatMessage) -> bool:
    """Whether an answer can go on with a turn: it is text alone that doesn't end in white space."""
    return bool(turn.text) and turn.text == turn.text.rstrip() and not turn.tool_calls


def check_beginning(turn: ChatMessage, at: str) -> None:
    """Check that an answer can go on with a turn.

    Raises:
        InvalidParameter: it calls tools or has no text, or, as with Anthropic, ends in white space.
    """
    if not is_beginning(turn):
        limit = "text alone without white space at its end, since the answer goes on with it"
        raise InvalidParameter(at, turn.text, limit)


def referenced_tools(messages: Sequence[Message]) -> set[str]:
    """Name the tools that results of a search have asked to be shown."""
    return {
        piece.tool_name
        for message in messages
        if not isinstance(message.content, str)
        for block in message.content
        if block.type == "tool_result" and not isinstance(block.content, str)
        for piece in block.content or ()
        if piece.type == "tool_reference" and piece.tool_name is not None
    }


def told_id(call_id: str) -> str:
    """Write a call's id as Anthropic's begin; short ones stay, for templates that want them so."""
    return CALL_PREFIX + call_id.removeprefix(_OUR_PREFIX) if _OUR_PREFIX in call_id else call_id


def _turns(message: Message, where: str, called: set[str]) -> list[ChatMessage]:
    """Make the turns of one message.

    Args:
        message: what was sent.
        where: the path of its content.
        called: ids of all calls so far; those of this message are added.
    """
    if isinstance(message.content, str):
        return [ChatMessage.of(message.role, message.content)]
    results: list[ChatMessage] = []
    parts: list[TextPart] = []
    calls: list[ToolCall] = []
    thoughts: list[str | None] = []
    for index, block in enumerate(message.content):
        at = f"{where}[{index}]"
        match block.type, message.role:
            case "text", _:
                parts.append(TextPart(_needed(block.text, f"{at}.text", "string")))
            case (("thinking" | "redacted_thinking"), "assistant"):
                thoughts.append(block.thinking)
            case "tool_use", "assistant":
                calls.append(_call(block, at))
                called.add(calls[-1].id)
            case "tool_result", "user":
                results.append(_result(block, at, called))
            case (("tool_use" | "tool_result" | "thinking" | "redacted_thinking"), role):
                raise InvalidParameter(f"{at}.type", block.type, f"a block of a turn of the {role}")
            case _:
                raise Unsupported(f"{at}.type", block.type, TEXT_ALONE)
    if parts or calls or not results:
        turn = ChatMessage(message.role, tuple(parts), tuple(calls), reasoning=_joined(thoughts))
        results.append(turn)
    return results


def _joined(texts: Sequence[str | None]) -> str | None:
    return "\n".join(filter(None, texts)) or None


def _call(block: Block, at: str) -> ToolCall:
    return ToolCall(
        _needed(block.id, f"{at}.id", "string"),
        _needed(block.name, f"{at}.name", "string"),
        msgspec.json.encode(block.input or {}).decode(),
    )


def _result(block: Block, at: str, called: set[str]) -> ChatMessage:
    call_id = _needed(block.tool_use_id, f"{at}.tool_use_id", "string")
    if call_id not in called:
        raise InvalidParameter(f"{at}.tool_use_id", call_id, "the id of an earlier tool_use block")
    content = block.content or ""
    if isinstance(content, str):
        return ChatMessage.of("tool", content, tool_call_id=call_id)
    texts = [_result_text(piece, f"{at}.content[{i}]") for i, piece in enumerate(content)]
    return ChatMessage("tool", tuple(map(TextPart, texts)), tool_call_id=call_id)


def _result_text(piece: ResultBlock, at: str) -> str:
    if piece.type == "tool_reference":
        return f"{_needed(piece.tool_name, f'{at}.tool_name', 'string')} can be called now."
    if piece.type != "text":
        raise Unsupported(f"{at}.type", piece.type, TEXT_ALONE)
    return _needed(piece.text, f"{at}.text", "string")


def _needed(value: str | None, at: str, limit: str) -> str:
    if value is None:
        raise InvalidParameter(at, None, limit)
    return value
