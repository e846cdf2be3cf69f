"""A conversation as every dialect means it: turns, tools and calls."""

from typing import Any, Self

import msgspec


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """A piece of a turn that is plain text."""

    text: str


Part = TextPart
"""What a turn is made of. A union as soon as models here take more than text."""


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call that an assistant's turn makes."""

    id: str
    name: str
    arguments: str
    """JSON text."""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may ask the client to call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = {}
    """JSON Schema of the arguments."""
    strict: bool = False
    """Whether calls must follow `parameters`."""


class ChatMessage(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: str
    """As the client wrote it: which roles exist is for the model's chat template to say."""
    content: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    """The calls that an assistant's turn makes."""
    tool_call_id: str | None = None
    """In a tool's turn: the call that it answers."""
    name: str | None = None
    reasoning: str | None = None
    """What the model thought before an assistant's turn, for templates that show it."""

    @classmethod
    def of(
        cls,
        role: str,
        text: str,
        tool_calls: tuple[ToolCall, ...] = (),
        *,
        tool_call_id: str | None = None,
        name: str | None = None,
    ) -> Self:
        """Make a turn whose content is one text."""
        return cls(role, (TextPart(text),), tool_calls, tool_call_id, name)

    @property
    def text(self) -> str:
        """The content as one text, parts on lines of their own."""
        return "\n".join(part.text for part in self.content)
