"""`POST /v1/responses`: the records that an answer and its events are made of."""

import time
from typing import Any, Literal

import msgspec

from app.contract.sampling import SamplingParams
from app.contract.usage import Usage
from app.dialects.openai.chat_wire import Logprob
from app.dialects.openai.ids import new_id
from app.dialects.openai.responses.schemas import ResponseBody

ItemStatus = Literal["in_progress", "completed", "incomplete"]
Json = dict[str, Any]


class OutputText(msgspec.Struct, kw_only=True):
    """The text of a message."""

    type: Literal["output_text"] = "output_text"
    text: str = ""
    annotations: list[Any] = []
    logprobs: list[Logprob] = []


class OutputMessage(msgspec.Struct, kw_only=True, tag_field="type", tag="message"):
    """A message of the assistant."""

    id: str
    role: Literal["assistant"] = "assistant"
    status: ItemStatus = "in_progress"
    content: list[OutputText]


class ReasoningText(msgspec.Struct, kw_only=True):
    """What the model thought."""

    type: Literal["reasoning_text"] = "reasoning_text"
    text: str = ""


class ReasoningItem(msgspec.Struct, kw_only=True, tag_field="type", tag="reasoning"):
    """What the model thought before its answer."""

    id: str
    status: ItemStatus = "in_progress"
    summary: list[Any] = []
    content: list[ReasoningText]
    encrypted_content: None = None


class FunctionCall(msgspec.Struct, kw_only=True, tag_field="type", tag="function_call"):
    """A call that the client is to make."""

    id: str
    status: ItemStatus = "in_progress"
    call_id: str
    name: str
    arguments: str = ""


OutputItem = ReasoningItem | OutputMessage | FunctionCall


class InputDetails(msgspec.Struct, frozen=True):
    """How many of the input's tokens were cached."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct, frozen=True):
    """How many of the output's tokens were reasoning."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, frozen=True):
    """Tokens that a request cost."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> "ResponseUsage":
        """Make one from the contract's record."""
        return cls(
            usage.prompt_tokens,
            InputDetails(usage.cached_tokens),
            usage.completion_tokens,
            OutputDetails(usage.reasoning_tokens),
            usage.total_tokens,
        )


class Failure(msgspec.Struct, frozen=True):
    """Why a response failed after it had begun."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why a response ended early."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ReasoningAsked(msgspec.Struct, frozen=True):
    """What was asked of reasoning; nothing sums it up here."""

    effort: str | None = None
    summary: None = None


class ResponseAnswer(msgspec.Struct, kw_only=True):
    """A response, in the making or whole. What the client sent comes back with it."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "failed"] = "in_progress"
    completed_at: int | None = None
    error: Failure | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    temperature: float
    top_p: float
    text: Json
    tool_choice: str | Json
    tools: list[Json]
    top_logprobs: int
    metadata: Json
    usage: ResponseUsage | None = None
    background: bool = False
    previous_response_id: str | None = None
    reasoning: ReasoningAsked = msgspec.field(default_factory=ReasoningAsked)
    service_tier: Literal["default"] = "default"
    store: bool = False
    truncation: Literal["disabled"] = "disabled"
    user: str | None = None

    @classmethod
    def begun(
        cls, asked: ResponseBody, model_id: str, sampling: SamplingParams, *, stored: bool
    ) -> "ResponseAnswer":
        """Make one with nothing written yet."""
        form = asked.text.format
        shown_form: Json = {"type": "text"} if form is None else _without_nulls(form)
        choice = asked.tool_choice
        return cls(
            id=new_id("resp"),
            created_at=int(time.time()),
            instructions=asked.instructions,
            max_output_tokens=asked.max_output_tokens,
            model=model_id,
            output=[],
            parallel_tool_calls=asked.parallel_tool_calls,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            text={"format": shown_form},
            tool_choice=choice if isinstance(choice, str) else msgspec.to_builtins(choice),
            tools=[{"strict": True, "parameters": None, **_without_nulls(t)} for t in asked.tools],
            top_logprobs=asked.top_logprobs or 0,
            metadata=asked.metadata,
            user=asked.user or None,
            previous_response_id=asked.previous_response_id,
            store=stored,
            reasoning=ReasoningAsked(asked.reasoning.effort),
        )


def _without_nulls(record: msgspec.Struct) -> Json:
    return {name: value for name, value in msgspec.to_builtins(record).items() if value is not None}
