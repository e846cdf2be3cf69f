"""`POST /v1/messages` and `/v1/messages/count_tokens`: what is sent, and the request it means.

Fields that nobody knows are refused, unless the client says in `anthropic-beta` that it is ahead of
us. What changes no answer's meaning is passed over and said (`kit.passed_over`). Inside of blocks
and tools, keys that we don't know are marks of the client's own (`cache_control`, `citations`).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from app.contract.conversation import ChatMessage, Tool
from app.contract.formats import JsonSchema
from app.contract.generation import GenerationRequest, Reasoning, ToolChoice
from app.contract.sampling import SamplingParams
from app.dialects.anthropic.conversation import (
    Message,
    SystemText,
    check_beginning,
    referenced_tools,
    to_messages,
)
from app.dialects.kit.body import Body, to_record
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.tools import Mode, differently_named, to_tool_choice
from app.errors import InvalidParameter, Unsupported

T = TypeVar("T", bound="Conversation")

ModelId = Annotated[
    str,
    Meta(
        min_length=1,
        description="Loaded first where it is only on disk.",
        examples=["HuggingFaceTB/SmolLM2-135M-Instruct"],
    ),
]
StopSequence = Annotated[str, Meta(min_length=1, max_length=1024)]
PASSED_OVER: Final[Mapping[str, str]] = {
    "cache_control": "prefixes are cached whether or not a client marks them",
    "context_management": "nothing is cut from a conversation here",
    "diagnostics": "no request is compared with an earlier one",
    "inference_geo": "the server is where it is",
    "service_tier": "there is one tier",
    "speed": "there is one speed",
}
"""Fields that change no answer's meaning."""
UNSERVED: Final[Mapping[str, str]] = {
    "container": "there are no containers",
    "mcp_servers": "the server calls no tools itself",
}
MODES: Final[Mapping[str, Mode]] = {
    "auto": "auto",
    "any": "required",
    "tool": "required",
    "none": "none",
}


class CustomTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of the client's; one of another type is Anthropic's own and not offered here."""

    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,128}$")]
    type: str = "custom"
    description: str | None = None
    input_schema: Annotated[
        dict[str, Any] | None, Meta(description="A JSON Schema; every custom tool has one.")
    ] = None
    strict: Annotated[bool, Meta(description="Whether calls must follow the schema.")] = False
    defer_loading: Annotated[
        bool, Meta(description="Shown only once a tool_reference block has named it.")
    ] = False


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """How tools are to be used."""

    type: Literal["auto", "any", "tool", "none"]
    name: Annotated[str | None, Meta(description="With type tool.")] = None
    disable_parallel_tool_use: bool = False


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a model that can think before it answers may."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[
        Annotated[int, Meta(ge=1024)] | None, Meta(description="Tokens of thinking at most.")
    ] = None
    display: Annotated[
        Literal["summarized", "omitted"],
        Meta(description="summarized: all that was thought; omitted: that there was something."),
    ] = "summarized"


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer is to be."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the answer is to be."""

    effort: str | None = None
    format: OutputFormat | None = None


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """Of the request; taken and not used."""

    user_id: str | None = None


class Conversation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that messages and their count share."""

    model: ModelId
    messages: Annotated[
        list[Message],
        Meta(min_length=1, examples=[[{"role": "user", "content": "Say hello."}]]),
    ]
    system: str | list[SystemText] = ""
    tools: Annotated[list[CustomTool], Meta(max_length=1024)] = []  # msgspec copies it
    tool_choice: Choice = Choice(type="auto")
    thinking: Annotated[Thinking | None, Meta(description="Default: disabled.")] = None
    output_config: OutputConfig = OutputConfig()
    output_format: Annotated[
        OutputFormat | None, Meta(description="An older name of output_config.format.")
    ] = None

    @property
    def continues(self) -> bool:
        """Whether the last turn is the beginning of the answer."""
        return self.messages[-1].role == "assistant"

    def turns(self) -> list[ChatMessage]:
        """Make generation's turns.

        Raises:
            InvalidParameter, Unsupported: a block that its role doesn't allow, or that isn't text.
        """
        return to_messages(self.system, self.messages)

    def choice(self) -> tuple[list[Tool], ToolChoice]:
        """Make the tools that the model is to know, and the choice among them.

        Raises:
            InvalidParameter: two have one name, one has no schema, or there is none to choose.
        """
        loaded = referenced_tools(self.messages)
        tools = []
        for index, tool in enumerate(self.tools):
            if not _is_custom(tool) or (tool.defer_loading and tool.name not in loaded):
                continue
            if tool.input_schema is None:
                raise InvalidParameter(f"tools[{index}].input_schema", None, "object")
            tools.append(
                Tool(
                    name=tool.name,
                    description=tool.description,
                    parameters=tool.input_schema,
                    strict=tool.strict,
                )
            )
        differently_named(tools, "tools[{}].name")
        asked = self.tool_choice
        if (asked.type == "tool") != (asked.name is not None):
            limit = "a tool's name with type tool, and none with another type"
            raise InvalidParameter("tool_choice.name", asked.name, limit)
        return tools, to_tool_choice(MODES[asked.type], asked.name, tools, "tool_choice.name")

    def note_ignored(self, passed_over: PassedOver) -> None:
        """Note what is asked for in vain.

        Raises:
            Unsupported: the server is strict.
        """
        for index, tool in enumerate(self.tools):
            if not _is_custom(tool):
                passed_over.note(f"tools[{index}]", tool.type, "only custom tools are offered")


class MessagesBody(Conversation, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/messages`."""

    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    temperature: Annotated[float, Meta(ge=0, le=1, description="0 is greedy.")] = 1.0
    top_p: Annotated[float, Meta(ge=0, le=1, description="0 is greedy.")] = 1.0
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1, description="0 is off.")] = 0
    stop_sequences: Annotated[
        list[StopSequence],
        Meta(max_length=64, description="The text ends before the first of these."),
    ] = []
    stream: bool = False
    metadata: Metadata = Metadata()

    @property
    def may_think(self) -> bool:
        """Whether the client lets the model think."""
        return self.thinking is not None and self.thinking.type != "disabled"

    def note_thinking(self, passed_over: PassedOver, *, thinks: bool) -> None:
        """Note what is asked of the model's thinking in vain, now that the model is known.

        Raises:
            Unsupported: the server is strict.
        """
        if self.thinking is not None and self.may_think and not thinks:
            reason = "this model doesn't think before it answers"
            passed_over.note("thinking", self.thinking.type, reason)
        effort = self.output_config.effort
        if effort is not None and not (self.may_think and thinks):
            passed_over.note("output_config.effort", effort, "nothing is thought here")

    def request(self) -> GenerationRequest:
        """Make the request.

        Raises:
            InvalidParameter, Unsupported: fields contradict each other, or one can't be served.
        """
        budget = None if self.thinking is None else self.thinking.budget_tokens
        if budget is not None and budget >= self.max_tokens:
            limit = f"less than max_tokens, {self.max_tokens}"
            raise InvalidParameter("thinking.budget_tokens", budget, limit)
        wanted = self.output_config.format or self.output_format
        turns = self.turns()
        if self.continues:
            self._check_beginning(turns[-1], wanted)
        tools, choice = self.choice()
        greedy = self.temperature == 0 or self.top_p == 0
        return GenerationRequest(
            messages=turns,
            max_tokens=self.max_tokens,
            sampling=SamplingParams(
                temperature=0.0 if greedy else self.temperature,
                top_p=self.top_p or 1.0,
                top_k=self.top_k,
            ),
            stop=tuple(self.stop_sequences),
            reasoning=Reasoning(self.output_config.effort, budget)
            if self.may_think
            else Reasoning("none"),
            tools=tools,
            tool_choice=choice,
            parallel_tool_calls=not self.tool_choice.disable_parallel_tool_use,
            response_format=None if wanted is None else JsonSchema(wanted.schema),
            continues=self.continues,
        )

    def _check_beginning(self, last: ChatMessage, wanted: OutputFormat | None) -> None:
        check_beginning(last, f"messages[{len(self.messages) - 1}].content")
        last_is = "where the last turn is the beginning of the answer"
        if self.may_think and self.thinking is not None:
            raise InvalidParameter("thinking.type", self.thinking.type, f"'disabled' {last_is}")
        if wanted is not None:
            field = "output_config.format" if self.output_config.format else "output_format"
            raise InvalidParameter(field, wanted.type, f"none {last_is}")


class CountBody(Conversation, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/messages/count_tokens`."""


def read(body: Body, kind: type[T], passed_over: PassedOver, *, betas: str) -> T:
    """Check a body's fields against a record's.

    Args:
        body: what was sent.
        kind: the record.
        passed_over: notes what is asked for in vain.
        betas: the header `anthropic-beta`: a field that we don't know is one of a beta's.

    Raises:
        InvalidParameter, UnknownParameter, Unsupported: the first field that is wrong.
    """
    kept: Body = {}
    for name, value in body.items():
        if value is None or name in kind.__struct_fields__:
            kept[name] = value
        elif name in UNSERVED:
            if value:
                raise Unsupported(name, value, UNSERVED[name])
        elif name in PASSED_OVER:
            passed_over.note(name, value, PASSED_OVER[name])
        elif betas:
            passed_over.note(name, value, "no beta that is known here has it")
        else:
            kept[name] = value  # refused as unknown
    asked = to_record(kept, kind)
    asked.note_ignored(passed_over)
    return asked


def _is_custom(tool: CustomTool) -> bool:
    return tool.type == "custom"
