"""`POST /v1/chat/completions`: what is sent, and the requests that it means."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from app.contract.conversation import ChatMessage, TextPart, ToolCall
from app.contract.generation import GenerationRequest
from app.dialects.kit.tools import Mode, to_format, to_tool_choice
from app.dialects.openai.schemas import (
    NO_REASONING,
    NOT_USED,
    TEXT_ALONE,
    UNSERVED,
    Count,
    GenerationOptions,
    Label,
    Metadata,
    Unserved,
)
from app.dialects.openai.tools import (
    ChatFormat,
    ChatNamedTool,
    ChatTool,
    to_tools,
)
from app.errors import InvalidParameter, Unsupported

CHAT_UNSERVED: Final[Mapping[str, Unserved]] = {
    **UNSERVED,
    "audio": Unserved("models here speak text alone"),
    "function_call": Unserved("its successor is tool_choice"),
    "functions": Unserved("its successor is tools"),
    "modalities": Unserved("models here speak text alone", (["text"],)),
    "prediction": Unserved("there is no prediction"),
    "reasoning_effort": Unserved(NO_REASONING, ("none",)),
    "web_search_options": Unserved("there is no web search"),
}


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a message; only text is served."""

    type: Literal["text", "refusal", "image_url", "input_audio", "file"]
    text: str | None = None
    refusal: str | None = None
    image_url: dict[str, Any] | None = None
    input_audio: dict[str, Any] | None = None
    file: dict[str, Any] | None = None


class CalledFunction(msgspec.Struct, frozen=True, kw_only=True):
    """What was called."""

    name: str
    arguments: Annotated[str, Meta(description="JSON text.")]


class MadeCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call of an assistant's turn."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


Content = str | list[Part] | None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation.

    Unknown fields are passed over here and in the calls, as OpenAI does: clients send our turns
    back with what they put on them (`parsed`, `parsed_arguments`, `provider_specific_fields`).
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[Content, Meta(description="Parts are joined by newlines.")] = None
    name: str | None = None
    tool_calls: list[MadeCall] | None = None
    tool_call_id: str | None = None
    refusal: Annotated[str | None, Meta(description="Stands in for absent content.")] = None
    annotations: Annotated[list[Any] | None, Meta(description=NOT_USED)] = None
    audio: dict[str, Any] | None = None
    function_call: dict[str, Any] | None = None


class ChatBody(GenerationOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[
        list[Message],
        Meta(min_length=1, examples=[[{"role": "user", "content": "Say hello."}]]),
    ]
    max_completion_tokens: Annotated[
        Count | None, Meta(description="Default: as many as the context has room for.")
    ] = None
    max_tokens: Annotated[
        Count | None, Meta(description="An older name of max_completion_tokens.")
    ] = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[ChatTool], Meta(max_length=128)] = []  # noqa: RUF012 # msgspec copies it
    tool_choice: Mode | ChatNamedTool = "auto"
    parallel_tool_calls: bool = True
    response_format: ChatFormat = ChatFormat()
    store: Annotated[bool, Meta(description="Nothing is stored, whatever it says.")] = False
    metadata: Annotated[Metadata, Meta(description=NOT_USED)] = {}  # noqa: RUF012 # msgspec copies it
    prompt_cache_key: Label = ""
    safety_identifier: Label = ""

    def requests(self) -> list[GenerationRequest]:
        """Make one request per choice.

        Raises:
            InvalidParameter, Unsupported: fields contradict each other, or one can't be served.
        """
        if self.top_logprobs and not self.logprobs:
            raise InvalidParameter("top_logprobs", self.top_logprobs, "none without logprobs: true")
        tools = to_tools(
            [tool.function for tool in self.tools], strict=False, where="tools[{}].function.name"
        )
        mode: Mode = self.tool_choice if isinstance(self.tool_choice, str) else "required"
        named = None if isinstance(self.tool_choice, str) else self.tool_choice.function.name
        named_schema = self.response_format.json_schema
        return self.choices(
            messages=to_messages(self.messages),
            max_tokens=self._max_tokens(),
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            tools=tools,
            tool_choice=to_tool_choice(mode, named, tools, "tool_choice.function.name"),
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=to_format(
                self.response_format.type,
                None if named_schema is None else named_schema.schema,
                "response_format.json_schema",
            ),
        )

    def _max_tokens(self) -> int | None:
        old, new = self.max_tokens, self.max_completion_tokens
        if old is not None and new is not None and old != new:
            raise InvalidParameter("max_tokens", old, f"{new} as in max_completion_tokens")
        return old if new is None else new


def to_messages(messages: Sequence[Message]) -> list[ChatMessage]:
    """Make generation's turns.

    Raises:
        InvalidParameter, Unsupported: a message that its role doesn't allow, or that is not text.
    """
    return [_to_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _to_message(message: Message, where: str) -> ChatMessage:
    if message.audio is not None:
        raise Unsupported(f"{where}.audio", message.audio, TEXT_ALONE)
    if message.function_call is not None:
        reason = "its successor is tool_calls"
        raise Unsupported(f"{where}.function_call", message.function_call, reason)
    role, calls = message.role, message.tool_calls or []
    if calls and role != "assistant":
        raise InvalidParameter(f"{where}.tool_calls", "given", "none but with role assistant")
    if (message.tool_call_id is not None) != (role == "tool"):
        limit = "the id of a call with role tool, and none with another role"
        raise InvalidParameter(f"{where}.tool_call_id", message.tool_call_id, limit)
    content = message.content if message.content is not None else message.refusal
    if content is None and not calls:
        raise InvalidParameter(f"{where}.content", None, "string or array of parts")
    return ChatMessage(
        role=role,
        content=_parts(content, f"{where}.content"),
        tool_calls=tuple(
            ToolCall(call.id, call.function.name, call.function.arguments) for call in calls
        ),
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def _parts(content: Content, where: str) -> tuple[TextPart, ...]:
    if content is None or isinstance(content, str):
        return (TextPart(content or ""),)
    return tuple(TextPart(_part_text(part, f"{where}[{i}]")) for i, part in enumerate(content))


def _part_text(part: Part, where: str) -> str:
    if part.type not in ("text", "refusal"):
        raise Unsupported(f"{where}.type", part.type, TEXT_ALONE)
    text = part.text if part.type == "text" else part.refusal
    if text is None:
        raise InvalidParameter(f"{where}.{part.type}", None, "string")
    return text
