"""`POST /v1/chat/completions`: what is sent, and the requests that it means."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from app.contract.conversation import ChatMessage, TextPart, Tool, ToolCall
from app.contract.generation import GenerationRequest, Reasoning, ToolChoice
from app.dialects.kit.tools import Mode, allowed_tools, to_options, to_tool_choice
from app.dialects.openai.schemas import (
    NOT_USED,
    ROLE,
    TEXT_ALONE,
    Count,
    Effort,
    GenerationOptions,
    Label,
    Metadata,
    TemplateVariables,
    ThinkingBudget,
)
from app.dialects.openai.taken import IGNORED, UNSERVED, Rules, Unserved
from app.dialects.openai.tools import (
    ChatAllowedTools,
    ChatNamedTool,
    ChatTool,
    to_tools,
)
from app.errors import InvalidParameter, Unsupported

CHAT_RULES: Final = Rules(
    {
        **UNSERVED,
        "audio": Unserved("models here speak text alone"),
        "function_call": Unserved("its successor is tool_choice"),
        "functions": Unserved("its successor is tools"),
        "modalities": Unserved("models here speak text alone", (["text"],)),
        "web_search_options": Unserved("there is no web search"),
        "best_of": Unserved("all choices are returned", (1,)),
        "echo": Unserved("an answer is the assistant's turn alone", (False,)),
    },
    IGNORED,
)


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

    role: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            pattern=ROLE,
            description="`system`, `developer`, `user`, `assistant`, `tool`, or another one that "
            "the model's chat template knows.",
        ),
    ]
    content: Annotated[Content, Meta(description="Parts are joined by newlines.")] = None
    name: str | None = None
    tool_calls: list[MadeCall] | None = None
    tool_call_id: str | None = None
    refusal: Annotated[str | None, Meta(description="Stands in for absent content.")] = None
    annotations: Annotated[list[Any] | None, Meta(description=NOT_USED)] = None
    reasoning_content: Annotated[
        str | None, Meta(description="What the model thought before, for its chat template.")
    ] = None
    audio: dict[str, Any] | None = None
    function_call: dict[str, Any] | None = None


class ChatBody(GenerationOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[
        list[Message],
        Meta(min_length=1, examples=[[{"role": "user", "content": "Say hello."}]]),
    ]
    max_completion_tokens: Annotated[
        Count | None,
        Meta(description="Default, and at most: as many as the context has room for."),
    ] = None
    max_tokens: Annotated[
        Count | None, Meta(description="An older name of max_completion_tokens.")
    ] = None
    add_generation_prompt: Annotated[
        bool, Meta(description="false: the assistant's turn isn't opened by the server.")
    ] = True
    continue_final_message: Annotated[
        bool, Meta(description="Go on with the last message instead of answering it.")
    ] = False
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[ChatTool], Meta(max_length=128)] = []  # noqa: RUF012 # msgspec copies it
    tool_choice: Mode | ChatNamedTool | ChatAllowedTools = "auto"
    parallel_tool_calls: bool = True
    chat_template_kwargs: TemplateVariables = {}  # noqa: RUF012 # msgspec copies it
    reasoning_effort: Effort | None = None
    thinking_token_budget: ThinkingBudget | None = None
    enable_thinking: Annotated[bool | None, Meta(description="false as reasoning_effort none.")] = (
        None
    )
    include_reasoning: Annotated[
        bool, Meta(description="Whether the answer has `reasoning_content`.")
    ] = True
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
        tools, choice = self._choice(tools)
        return self.choices(
            messages=to_messages(self.messages),
            max_tokens=self._max_tokens(),
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            tools=tools,
            tool_choice=choice,
            # OpenAI's guide: a function that is named is called exactly once
            parallel_tool_calls=self.parallel_tool_calls and choice.name is None,
            template_options=to_options(self.chat_template_kwargs, "chat_template_kwargs"),
            reasoning=self._reasoning(),
            opens_turn=self.add_generation_prompt and not self.continue_final_message,
            continues=self.continue_final_message,
        )

    def _reasoning(self) -> Reasoning:
        effort = self.reasoning_effort
        if self.enable_thinking is False:
            if effort not in (None, "none"):
                limit = "'none', as enable_thinking is false"
                raise InvalidParameter("reasoning_effort", effort, limit)
            effort = "none"
        return Reasoning(effort, self.thinking_token_budget)

    def _choice(self, tools: Sequence[Tool]) -> tuple[Sequence[Tool], ToolChoice]:
        match self.tool_choice:
            case ChatAllowedTools(allowed_tools=allowed):
                names = [one.function.name for one in allowed.tools]
                return allowed_tools(tools, allowed.mode, names, "tool_choice.allowed_tools")
            case ChatNamedTool(function=function):
                where = "tool_choice.function.name"
                return tools, to_tool_choice("required", function.name, tools, where)
            case mode:
                return tools, to_tool_choice(mode, None, tools, "tool_choice")

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
        reasoning=message.reasoning_content if role == "assistant" else None,
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
