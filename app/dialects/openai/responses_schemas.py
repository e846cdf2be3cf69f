"""`POST /v1/responses`: what is sent, and the request that it means.

Stateless: nothing is kept, so a conversation comes whole in `input` each time.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from app.contract.conversation import ChatMessage, TextPart, ToolCall
from app.contract.generation import GenerationRequest
from app.contract.sampling import SamplingParams
from app.dialects.kit.tools import Mode, to_format, to_tool_choice
from app.dialects.openai.schemas import (
    NOT_USED,
    TEXT_ALONE,
    UNSERVED,
    Count,
    Label,
    Metadata,
    ModelId,
    Temperature,
    TopP,
    Unserved,
)
from app.dialects.openai.tools import (
    ResponseFormat,
    ResponseNamedTool,
    ResponseTool,
    to_tools,
)
from app.errors import InvalidParameter, Unsupported

_STATELESS: Final = "nothing is stored; send the whole conversation as input"
RESPONSES_UNSERVED: Final[Mapping[str, Unserved]] = {
    **{name: rule for name, rule in UNSERVED.items() if name != "verbosity"},
    "access_programs": Unserved("there are none"),
    "background": Unserved(_STATELESS, (False,)),
    "background_options": Unserved(_STATELESS),
    "context_management": Unserved(_STATELESS, ([],)),
    "conversation": Unserved(_STATELESS),
    "image": Unserved(TEXT_ALONE),
    "max_tool_calls": Unserved("it limits built-in tools, and there are none"),
    "previous_response_id": Unserved(_STATELESS),
    "prompt": Unserved("there are no stored prompts"),
    "truncation": Unserved("an input longer than the context is refused", ("disabled",)),
}
LOGPROBS: Final = "message.output_text.logprobs"


class InputPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a message; only text is served."""

    type: Literal["input_text", "output_text", "refusal", "input_image", "input_file"]
    text: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    image_url: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    detail: str | None = None


Text = str | list[InputPart] | None


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message, a call of a function, or what the function gave. Output can be sent back."""

    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Annotated[Text, Meta(description="Parts are joined by newlines.")] = None
    call_id: str | None = None
    name: str | None = None
    arguments: Annotated[str | None, Meta(description="JSON text.")] = None
    output: Text = None
    id: Annotated[str | None, Meta(description=NOT_USED)] = None
    status: Annotated[str | None, Meta(description=NOT_USED)] = None
    phase: Annotated[str | None, Meta(description=NOT_USED)] = None


class TextConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the text is to be."""

    format: ResponseFormat | None = None
    verbosity: Annotated[
        Literal["medium"] | None, Meta(description="Models here know no other.")
    ] = None


class Reasoning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for reasoning, none of which is served."""

    effort: Literal["none"] | None = None
    summary: None = None
    generate_summary: None = None


class ResponseStreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a stream is written."""

    include_obfuscation: Annotated[bool | None, Meta(description=NOT_USED)] = None


class ResponseBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/responses`."""

    model: ModelId
    input: Annotated[str | Annotated[list[Item], Meta(min_length=1)], Meta(examples=["Say hello."])]
    instructions: Annotated[str | None, Meta(description="A system message in front.")] = None
    max_output_tokens: Annotated[
        Count | None, Meta(description="Default: as many as the context has room for.")
    ] = None
    temperature: Temperature = 1.0
    top_p: TopP = 1.0
    text: TextConfig = TextConfig()
    tools: Annotated[list[ResponseTool], Meta(max_length=128)] = []
    tool_choice: Mode | ResponseNamedTool = "auto"
    parallel_tool_calls: bool = True
    include: Annotated[
        list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]],
        Meta(description="There is no reasoning to include."),
    ] = []
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning: Reasoning = Reasoning()
    stream: bool = False
    stream_options: ResponseStreamOptions | None = None
    store: Annotated[bool, Meta(description="Nothing is stored, whatever it says.")] = True
    metadata: Annotated[Metadata, Meta(description="Comes back in the answer.")] = {}
    user: Label = ""
    prompt_cache_key: Label = ""
    safety_identifier: Label = ""

    def request(self) -> GenerationRequest:
        """Make the request.

        Raises:
            InvalidParameter, Unsupported: fields contradict each other, or one can't be served.
        """
        logprobs = LOGPROBS in self.include
        if self.top_logprobs and not logprobs:
            limit = f"none without {LOGPROBS!r} in include"
            raise InvalidParameter("top_logprobs", self.top_logprobs, limit)
        tools = to_tools(self.tools, strict=True, where="tools[{}].name")
        mode: Mode = self.tool_choice if isinstance(self.tool_choice, str) else "required"
        named = None if isinstance(self.tool_choice, str) else self.tool_choice.name
        form = self.text.format or ResponseFormat()
        greedy = self.temperature == 0 or self.top_p == 0
        return GenerationRequest(
            messages=self._messages(),
            max_tokens=self.max_output_tokens,
            sampling=SamplingParams(
                temperature=0.0 if greedy else self.temperature, top_p=self.top_p or 1.0
            ),
            top_logprobs=(self.top_logprobs or 0) if logprobs else None,
            tools=tools,
            tool_choice=to_tool_choice(mode, named, tools, "tool_choice.name"),
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=to_format(form.type, form.schema, "text.format.schema"),
        )

    def _messages(self) -> list[ChatMessage]:
        messages = (
            [] if self.instructions is None else [ChatMessage.of("system", self.instructions)]
        )
        if isinstance(self.input, str):
            return [*messages, ChatMessage.of("user", self.input)]
        for index, item in enumerate(self.input):
            where = f"input[{index}]"
            match item.type:
                case "message":
                    messages.append(_message(item, where))
                case "function_call":
                    _add_call(messages, item, where)
                case "function_call_output":
                    call_id = _needed(item.call_id, f"{where}.call_id")
                    output = _parts(item.output, f"{where}.output")
                    messages.append(ChatMessage("tool", output, tool_call_id=call_id))
        return messages


def _message(item: Item, where: str) -> ChatMessage:
    role = _needed(item.role, f"{where}.role")
    return ChatMessage(role, _parts(item.content, f"{where}.content"))


def _add_call(messages: list[ChatMessage], item: Item, where: str) -> None:
    """Put a call into the assistant's turn, which its text or another call may have begun."""
    call = ToolCall(
        _needed(item.call_id, f"{where}.call_id"),
        _needed(item.name, f"{where}.name"),
        _needed(item.arguments, f"{where}.arguments"),
    )
    if not messages or messages[-1].role != "assistant":
        messages.append(ChatMessage.of("assistant", ""))
    turn = messages[-1]
    messages[-1] = msgspec.structs.replace(turn, tool_calls=(*turn.tool_calls, call))


def _needed(value: str | None, where: str) -> str:
    if value is None:
        raise InvalidParameter(where, None, "string")
    return value


def _parts(content: Text, where: str) -> tuple[TextPart, ...]:
    if not isinstance(content, list):
        return (TextPart(_needed(content, where)),)
    return tuple(TextPart(_part_text(part, f"{where}[{i}]")) for i, part in enumerate(content))


def _part_text(part: InputPart, where: str) -> str:
    if part.type in ("input_image", "input_file"):
        raise Unsupported(f"{where}.type", part.type, TEXT_ALONE)
    if part.type == "refusal":
        return _needed(part.refusal, f"{where}.refusal")
    return _needed(part.text, f"{where}.text")
