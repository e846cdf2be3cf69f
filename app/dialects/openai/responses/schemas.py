"""`POST /v1/responses`: what is sent, and the request that it means.

A conversation comes whole in `input`, or goes on from a response that was kept.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from app.contract.conversation import ChatMessage, Tool
from app.contract.generation import GenerationRequest, Reasoning, ToolChoice
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.tools import Mode, allowed_tools, to_format, to_options, to_tool_choice
from app.dialects.openai.responses.items import Item, to_messages
from app.dialects.openai.sampling import Sampling
from app.dialects.openai.schemas import (
    NOT_USED,
    TEXT_ALONE,
    Count,
    Effort,
    Label,
    Metadata,
    ModelId,
    ThinkingBudget,
)
from app.dialects.openai.taken import IGNORED, UNSERVED, Rules, Unserved
from app.dialects.openai.tools import (
    ResponseAllowedTools,
    ResponseFormat,
    ResponseNamedTool,
    ResponseTool,
    to_tools,
)
from app.errors import InvalidParameter

NO_TOKENS_TOLD: Final = {
    "prompt_logprobs": Unserved("a response has no place for them"),
    "timings_per_token": Unserved("a response has no place for them", (False,)),
    **dict.fromkeys(
        ("return_token_ids", "return_tokens_as_token_ids"),
        Unserved("a response names tokens by their text alone", (False,)),
    ),
}
_NO_BACKGROUND: Final = "a response is made while its client waits for it"
_NO_BUILT_IN: Final = "it limits built-in tools, and there are none"
RESPONSES_RULES: Final = Rules(
    {
        **UNSERVED,
        "background": Unserved(_NO_BACKGROUND, (False,)),
        "background_options": Unserved(_NO_BACKGROUND),
        "context_management": Unserved("conversations are not shortened", ([],)),
        "conversation": Unserved("conversations go on by previous_response_id"),
        "image": Unserved(TEXT_ALONE),
        "prompt": Unserved("there are no stored prompts"),
        **NO_TOKENS_TOLD,
    },
    {
        **IGNORED,
        "access_programs": Unserved("there are none"),
        "max_tool_calls": Unserved(_NO_BUILT_IN),
        "return_progress": Unserved("a response's events have no place for it", (False,)),
        "truncation": Unserved("an input longer than the context is refused", ("disabled",)),
    },
)
LOGPROBS: Final = "message.output_text.logprobs"


class TextConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the text is to be."""

    format: ResponseFormat | None = None
    verbosity: Annotated[
        Literal["low", "medium", "high"] | None, Meta(description="Models here know none.")
    ] = None


class ReasoningConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options for reasoning."""

    effort: Effort | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponseStreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a stream is written."""

    include_obfuscation: Annotated[bool | None, Meta(description=NOT_USED)] = None
    include_usage: Annotated[bool | None, Meta(description="It is always told.")] = None


class ResponseBody(Sampling, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/responses`."""

    model: ModelId | None = None
    input: Annotated[str | Annotated[list[Item], Meta(min_length=1)], Meta(examples=["Say hello."])]
    instructions: Annotated[str | None, Meta(description="A system message in front.")] = None
    max_output_tokens: Annotated[
        Count | None,
        Meta(description="Default, and at most: as many as the context has room for."),
    ] = None
    text: TextConfig = TextConfig()
    tools: Annotated[list[ResponseTool], Meta(max_length=128)] = []  # noqa: RUF012 # msgspec copies it
    tool_choice: Mode | ResponseNamedTool | ResponseAllowedTools = "auto"
    parallel_tool_calls: bool = True
    chat_template_kwargs: Annotated[
        dict[str, bool | int | float | str | None],
        Meta(max_length=32, description="Further variables of the model's chat template."),
    ] = {}  # noqa: RUF012 # msgspec copies it
    include: Annotated[
        list[str],
        Meta(max_length=32, description=f"`{LOGPROBS}`; what else there is has nothing to show."),
    ] = []  # noqa: RUF012 # msgspec copies it
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning: ReasoningConfig = ReasoningConfig()
    thinking_token_budget: ThinkingBudget | None = None
    stream: bool = False
    stream_options: ResponseStreamOptions | None = None
    previous_response_id: (
        Annotated[
            str, Meta(max_length=64, description="The conversation of this response goes on.")
        ]
        | None
    ) = None
    store: (
        Annotated[bool, Meta(description="Kept for users who signed in, unless this is false.")]
        | None
    ) = None
    metadata: Annotated[Metadata, Meta(description="Comes back in the answer.")] = {}  # noqa: RUF012 # msgspec copies it
    user: Label = ""
    prompt_cache_key: Label = ""
    safety_identifier: Label = ""

    def request(self, before: Sequence[Item] = ()) -> GenerationRequest:
        """Make the request.

        Args:
            before: the conversation so far.

        Raises:
            InvalidParameter, Unsupported: fields contradict each other, or one can't be served.
        """
        logprobs = LOGPROBS in self.include
        if self.top_logprobs and not logprobs:
            limit = f"none without {LOGPROBS!r} in include"
            raise InvalidParameter("top_logprobs", self.top_logprobs, limit)
        tools = to_tools(self.tools, strict=True, where="tools[{}].name")
        tools, choice = self._choice(tools)
        form = self.text.format or ResponseFormat()
        return self.sampled(
            messages=self._messages(before),
            max_tokens=self.max_output_tokens,
            top_logprobs=(self.top_logprobs or 0) if logprobs else None,
            tools=tools,
            tool_choice=choice,
            # OpenAI's guide: a function that is named is called exactly once
            parallel_tool_calls=self.parallel_tool_calls and choice.name is None,
            response_format=to_format(form.type, form.schema, "text.format.schema"),
            template_options=to_options(self.chat_template_kwargs, "chat_template_kwargs"),
            reasoning=Reasoning(self.reasoning.effort, self.thinking_token_budget),
        )

    def _choice(self, tools: Sequence[Tool]) -> tuple[Sequence[Tool], ToolChoice]:
        match self.tool_choice:
            case ResponseAllowedTools(mode=mode, tools=allowed):
                return allowed_tools(tools, mode, [one.name for one in allowed], "tool_choice")
            case ResponseNamedTool(name=name):
                return tools, to_tool_choice("required", name, tools, "tool_choice.name")
            case mode:
                return tools, to_tool_choice(mode, None, tools, "tool_choice")

    def _messages(self, before: Sequence[Item]) -> list[ChatMessage]:
        messages = (
            [] if self.instructions is None else [ChatMessage.of("system", self.instructions)]
        )
        items = (
            [Item(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        )
        return [*messages, *to_messages([*before, *items], "input", first=len(before))]


def note_harmless(asked: ResponseBody, passed: PassedOver) -> None:
    """Note what was asked for and has no effect on models of this server.

    Raises:
        Unsupported: the server takes no such thing.
    """
    for index, name in enumerate(asked.include):
        if name not in (LOGPROBS, "reasoning.encrypted_content"):
            passed.note(f"include[{index}]", name, "no tool here gives anything to include")
    if asked.text.verbosity not in (None, "medium"):
        passed.note("text.verbosity", asked.text.verbosity, "models here know no verbosity")
    for name in ("summary", "generate_summary"):
        if (value := getattr(asked.reasoning, name)) is not None:
            passed.note(f"reasoning.{name}", value, "there is no model that sums up")
