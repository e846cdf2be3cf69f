"""Write conversations out for one model.

Uses the model's chat template, and describes tools in words of our own where that has no place for
them. Knows no token ids.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.catalog.chat_template import ChatTemplate
from app.contract.conversation import ChatMessage, Tool
from app.errors import InvalidParameter
from app.generation.content_guard import marked
from app.generation.thinking import ThinkingFormat, thinking_format
from app.generation.tool_formats import HERMES, ToolFormat, in_plain_turns, native_format


class ConversationWriter:
    """Writes for one template."""

    def __init__(self, template: ChatTemplate, special_tokens: Sequence[str] = ()) -> None:
        """Write by a template.

        Args:
            template: the model's.
            special_tokens: texts that stay texts where a client sent them.
        """
        self._template = template
        self._special_tokens = special_tokens
        self._native = native_format(template)
        self._thinking = thinking_format(template)

    @property
    def thinking(self) -> ThinkingFormat | None:
        """What stands around the model's thinking; None: it doesn't think."""
        return self._thinking

    @property
    def tool_format(self) -> ToolFormat:
        """How the model is shown to call tools, and so will."""
        return self._native or HERMES

    def write(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool] = (),
        options: Mapping[str, Any] | None = None,
        *,
        opens_turn: bool = True,
        continues: bool = False,
    ) -> list[str]:
        """Write a conversation with the opening of the assistant's turn at its end.

        Args:
            messages: the conversation.
            tools: what it may call.
            options: further variables of the template.
            opens_turn: whether that opening is there.
            continues: whether it ends with the last turn's text instead.

        Returns:
            Parts that are to be tokenized apart: one, unless a client sent special tokens.

        Raises:
            InvalidParameter, ModelBroken: as the template does.
        """
        for name, value in (options or {}).items():
            if isinstance(value, str) and any(token in value for token in self._special_tokens):
                limit = "no special token of the model's in it"
                raise InvalidParameter(f"chat_template_kwargs.{name}"[:200], value, limit)
        messages, tools, mark = marked(messages, tools, self._special_tokens)
        text = self._rendered(messages, tools, options or {}, opens_turn and not continues)
        if continues:
            text = _up_to(text, messages[-1].text)
        return text.split(mark) if mark else [text]

    def _rendered(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool],
        options: Mapping[str, Any],
        opens_turn: bool,  # the templates' own variable
    ) -> str:
        calls = any(message.role == "tool" or message.tool_calls for message in messages)
        if self._native is not None or not (tools or calls):
            return self._template.render(
                messages, tools, options=options, add_generation_prompt=opens_turn
            )
        try:
            return self._template.render(
                in_plain_turns(messages, tools),
                options=options,
                add_generation_prompt=opens_turn,
            )
        except InvalidParameter:  # some templates take no system turn
            turns = in_plain_turns(messages, tools, in_system=False)
            return self._template.render(turns, options=options, add_generation_prompt=opens_turn)


def _up_to(text: str, content: str) -> str:
    """Cut a conversation off after the last turn's text, as Transformers does.

    Raises:
        InvalidParameter: there is none, or the template doesn't write it as it is.
    """
    wanted = content.strip()
    at = text.rfind(wanted) if wanted else -1
    if at < 0:
        limit = "a last turn with text, which the model's chat template writes as it is"
        raise InvalidParameter("messages[].content", content, limit)
    # white space at its end is the client's to keep, if the template has kept it
    end = at + len(wanted)
    kept = content[len(content.rstrip()) :]
    return text[: end + len(kept)] if text.startswith(kept, end) else text[:end]
