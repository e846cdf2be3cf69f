"""Ollama's turns, and the turns of the contract that they mean.

Calls needn't have ids there: those without get one, and a result without is that of the first call
of its name that has none yet.
"""

from collections import deque
from collections.abc import Mapping, Sequence
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
    open_ids: set[str] = set()
    waiting: dict[str | None, deque[str]] = {}
    """Ids of calls in their order, by name and, at None, of all; answered ones are dropped late."""
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
        for made_call in calls:
            open_ids.add(made_call.id)
            for name in (made_call.name, None):
                waiting.setdefault(name, deque()).append(made_call.id)
        answered: str | None = None
        if message.role == "tool":
            answered = message.tool_call_id or _answered(waiting, open_ids, message.tool_name, at)
            open_ids.discard(answered)
        parts = () if calls and not message.content else (TextPart(message.content or ""),)
        turns.append(
            ChatMessage(
                message.role, parts, tuple(calls), tool_call_id=answered, reasoning=message.thinking
            )
        )
    return turns


def is_beginning(turn: ChatMessage) -> bool:
    """Whether the answer goes on with a last turn: it is the assistant's, and text alone."""
    return turn.role == "assistant" and bool(turn.text.strip()) and not turn.tool_calls


def _answered(
    waiting: Mapping[str | None, deque[str]], open_ids: set[str], name: str | None, at: str
) -> str:
    """Find the first call of this name that has no result yet."""
    ids = waiting.get(name, deque())
    while ids and ids[0] not in open_ids:
        ids.popleft()
    if ids:
        return ids[0]
    limit = "a tool that an earlier turn calls and that has no result yet"
    raise InvalidParameter(f"{at}.tool_name", name, limit)
