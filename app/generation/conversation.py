"""Write conversations out for one model.

By its chat template, or in words of our own where that has no place for tools. Knows no token ids.
"""

from collections.abc import Sequence

from app.catalog.chat_template import ChatTemplate
from app.contract.conversation import ChatMessage, Tool
from app.errors import InvalidParameter
from app.generation.tool_formats import HERMES, ToolFormat, in_plain_turns, native_format


class ConversationWriter:
    """Writes for one template."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._native = native_format(template)

    @property
    def tool_format(self) -> ToolFormat:
        """How the model is shown to call tools, and so will."""
        return self._native or HERMES

    def write(self, messages: Sequence[ChatMessage], tools: Sequence[Tool] = ()) -> str:
        """Write a conversation with the opening of the assistant's turn at its end.

        Raises:
            InvalidParameter, ModelBroken: as the template does.
        """
        calls = any(message.role == "tool" or message.tool_calls for message in messages)
        if self._native is not None or not (tools or calls):
            return self._template.render(messages, tools)
        try:
            return self._template.render(in_plain_turns(messages, tools))
        except InvalidParameter:  # some templates take no system's turn
            return self._template.render(in_plain_turns(messages, tools, in_system=False))
