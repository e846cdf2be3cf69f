"""Ollama's turns, and the turns of the contract that they mean.

Calls needn't have ids there: those without get one, and a result without is that of the first call
of its name that has none yet.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from app.contract.conversation import ChatMessage, TextPart, ToolCall
from app.errors import InvalidParameter, Unsupported

TEXT_ALONE: Final = "models here read text alone"


class CalledFunction(msgspec.Struct, frozen=True, kw_only=True):
    """What was called."""

    name: str
    arguments: dict[str, Any] = {}


class MadeCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call of an assistant's turn."""

    function: CalledFunction
    id: str | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: Annotated[list[str] | None, Meta(description="Refused.")] = None
    tool_calls: list[MadeCall] | None = None
    tool_name: Annotated[str | None, Meta(description="Of a tool's turn.")] = None
    tool_call_id: Annotated[str | None, Meta(description="Of a tool's turn.")] = None


def to_messages(messages: Sequence[Message]) -> list[ChatMessage]:
    """Make generation's turns.

    Raises:
        InvalidParameter, Unsupported: a message that its role doesn't allow, or that is not text.
    """
    turns: list[ChatMessage] = []
    open_calls: list[ToolCall] = []
    made = 0
    for index, message in enumerate(messages):
        at = f"messages[{index}]"
        if message.images:
            raise Unsupported(f"{at}.images", f"{len(message.images)} images", TEXT_ALONE)
        if message.tool_calls and message.role != "assistant":
            limit = "none but with role assistant"
            raise InvalidParameter(f"{at}.tool_calls", "given", limit)
        calls = []
        for call in message.tool_calls or ():
            # nine letters and digits: some templates take no other ids
            call_id = call.id or f"call{made:05d}"
            made += 1
            arguments = msgspec.json.encode(call.function.arguments).decode()
            calls.append(ToolCall(call_id, call.function.name, arguments))
        open_calls += calls
        answered: str | None = None
        if message.role == "tool":
            answered = message.tool_call_id or _answered(open_calls, message.tool_name, at)
            open_calls = [call for call in open_calls if call.id != answered]
        parts = () if calls and not message.content else (TextPart(message.content or ""),)
        turns.append(
            ChatMessage(
                message.role, parts, tuple(calls), tool_call_id=answered, reasoning=message.thinking
            )
        )
    return turns


def _answered(calls: Sequence[ToolCall], name: str | None, at: str) -> str:
    for call in calls:
        if name in (None, call.name):
            return call.id
    limit = "a tool that an earlier turn calls and that has no result yet"
    raise InvalidParameter(f"{at}.tool_name", name, limit)
