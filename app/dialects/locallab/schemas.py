"""What LocalLab's clients send and get.

An absent field and an explicit null mean the default (`kit.body` drops nulls).
"""

from itertools import combinations
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from app.contract.conversation import ChatMessage
from app.contract.generation import GenerationRequest
from app.contract.models import ModelState
from app.contract.sampling import SamplingParams
from app.contract.usage import Usage
from app.contract.whole import Whole
from app.errors import InvalidParameter

MAX_LENGTH: Final = 16384
"""Tokens of the longest answer that may be asked for."""
DEFAULT_MAX_LENGTH: Final = 8192
MAX_PROMPTS: Final = 2048
"""Prompts of a batch, so that a list of them is made before the engine refuses it."""
LENGTH_NAMES: Final = ("max_length", "max_tokens", "max_new_tokens")

Text = Annotated[str, Meta(min_length=1)]
Length = Annotated[int, Meta(ge=1, le=MAX_LENGTH)]
Prompt = Annotated[Text, Meta(examples=["Explain quantum computing in simple terms"])]
StopString = Annotated[str, Meta(min_length=1, max_length=1024)]
JsonSchema = dict[str, Any]


def _together(**fields: JsonSchema) -> JsonSchema:
    """Bodies that have all of these fields, with such values."""
    return {"required": list(fields), "properties": fields}


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that all three endpoints share."""

    # Two names of the same length are taken when they agree; the schema's words can't say that.
    CONTRADICTIONS: ClassVar[tuple[JsonSchema, ...]] = tuple(
        _together(**{name: {"type": "integer"} for name in names})
        for names in combinations(LENGTH_NAMES, 2)
    )

    model_id: Annotated[Text | None, Meta(description="Default: the loaded model.")] = None
    max_length: Annotated[
        Length | None,
        Meta(description=f"Tokens to generate at most. Default {DEFAULT_MAX_LENGTH}."),
    ] = None
    max_tokens: Annotated[
        Length | None, Meta(description="Another name of max_length, as is max_new_tokens.")
    ] = None
    max_new_tokens: Length | None = None
    temperature: Annotated[float, Meta(ge=0, le=2, description="0 is greedy.")] = 0.7
    top_p: Annotated[float, Meta(gt=0, le=1)] = 0.9
    top_k: Annotated[int, Meta(ge=0, le=1000, description="0 is off.")] = 80
    repetition_penalty: Annotated[float, Meta(ge=1, le=2)] = 1.15
    do_sample: Annotated[bool, Meta(description="false is greedy.")] = True
    seed: Annotated[
        Annotated[int, Meta(ge=0, le=2**63 - 1)] | None,
        Meta(description="The same request with the same seed gives the same text."),
    ] = None
    stop: Annotated[
        StopString | Annotated[list[StopString], Meta(max_length=16)],
        Meta(description="The text ends before the first of these."),
    ] = []
    max_time: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Seconds after which the text ends with finish reason length."),
    ] = None
    system_prompt: Text | None = None

    def request(self, messages: list[ChatMessage], prompt: str | None = None) -> GenerationRequest:
        """Make the contract's request for a conversation, a raw prompt or either.

        Raises:
            InvalidParameter: fields contradict each other.
        """
        return GenerationRequest(
            messages=messages,
            prompt=prompt,
            max_tokens=self._max_tokens(),
            sampling=SamplingParams(
                repetition_penalty=self.repetition_penalty,
                temperature=self.temperature if self.do_sample else 0.0,
                top_k=self.top_k,
                top_p=self.top_p,
                seed=self.seed,
            ),
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop),
            max_time_s=self.max_time,
        )

    def prompt_request(self, prompt: str, *, raw: bool) -> GenerationRequest:
        """Make the request for one prompt: a user's turn where the model has a template."""
        if not raw:
            user = ChatMessage.of("user", prompt)
            if self.system_prompt is None:
                return self.request([user], prompt)
            return self.request([ChatMessage.of("system", self.system_prompt), user])
        if self.system_prompt is not None:
            raise InvalidParameter("system_prompt", self.system_prompt, "none with raw: true")
        return self.request([], prompt)

    def _max_tokens(self) -> int:
        named = {name: getattr(self, name) for name in LENGTH_NAMES}
        given = {name: value for name, value in named.items() if value is not None}
        for name, value in given.items():
            first = next(iter(given))
            if value != given[first]:
                raise InvalidParameter(name, value, f"{given[first]} as in {first}")
        return next(iter(given.values()), DEFAULT_MAX_LENGTH)


_RAW_WITH_SYSTEM: Final = _together(system_prompt={"type": "string"}, raw={"const": True})


class GenerateBody(Options, frozen=True, kw_only=True):
    """`POST /generate`."""

    CONTRADICTIONS = (*Options.CONTRADICTIONS, _RAW_WITH_SYSTEM)

    prompt: Prompt
    stream: bool = False
    raw: Annotated[bool, Meta(description="Send the prompt past the chat template.")] = False


class ChatBody(Options, frozen=True, kw_only=True):
    """`POST /chat`."""

    CONTRADICTIONS = (
        *Options.CONTRADICTIONS,
        _together(
            system_prompt={"type": "string"},
            messages={"contains": _together(role={"const": "system"})},
        ),
    )

    messages: Annotated[
        list[Message],
        Meta(min_length=1, examples=[[{"role": "user", "content": "Hello, how are you?"}]]),
    ]
    stream: bool = False

    def chat_request(self) -> GenerationRequest:
        """Make the request; `system_prompt` is one more message in front."""
        messages = [ChatMessage.of(message.role, message.content) for message in self.messages]
        if self.system_prompt is None:
            return self.request(messages)
        if any(message.role == "system" for message in messages):
            limit = "none beside a message with role system"
            raise InvalidParameter("system_prompt", self.system_prompt, limit)
        return self.request([ChatMessage.of("system", self.system_prompt), *messages])


class BatchBody(Options, frozen=True, kw_only=True):
    """`POST /generate/batch`."""

    CONTRADICTIONS = (
        *Options.CONTRADICTIONS,
        _RAW_WITH_SYSTEM,
        _together(stream={"const": True}),
    )

    prompts: Annotated[list[Prompt], Meta(min_length=1)]
    stream: Annotated[bool, Meta(description="Only false: a batch is answered whole.")] = False
    raw: bool = False

    def requests(self) -> list[GenerationRequest]:
        """Make a request for each prompt.

        Raises:
            InvalidParameter: fields contradict each other, or there are too many prompts.
        """
        if self.stream:
            raise InvalidParameter("stream", self.stream, "false, a batch is answered whole")
        if len(self.prompts) > MAX_PROMPTS:
            raise InvalidParameter("prompts", f"{len(self.prompts)}", f"at most {MAX_PROMPTS}")
        return [self.prompt_request(prompt, raw=self.raw) for prompt in self.prompts]


class UsageAnswer(msgspec.Struct, frozen=True):
    """Tokens that a request cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, *usages: Usage) -> "UsageAnswer":
        """Sum up."""
        prompt = sum(usage.prompt_tokens for usage in usages)
        completion = sum(usage.completion_tokens for usage in usages)
        return cls(prompt, completion, prompt + completion)


class GenerateAnswer(msgspec.Struct, frozen=True):
    """A whole text."""

    response: str
    model_id: str
    finish_reason: str
    usage: UsageAnswer

    @classmethod
    def of(cls, whole: Whole, model_id: str) -> "GenerateAnswer":
        """Make one from a whole generation."""
        finished = whole.finished
        return cls(whole.text, model_id, finished.reason, UsageAnswer.of(finished.usage))


class ChatTurn(msgspec.Struct, frozen=True):
    """The one answer of `/chat`."""

    index: int
    message: Message
    finish_reason: str


class ChatAnswer(msgspec.Struct, frozen=True):
    """A whole turn."""

    choices: list[ChatTurn]
    model_id: str
    usage: UsageAnswer

    @classmethod
    def of(cls, whole: Whole, model_id: str) -> "ChatAnswer":
        """Make one from a whole generation, as the assistant's turn."""
        choice = ChatTurn(0, Message("assistant", whole.text), whole.finished.reason)
        return cls([choice], model_id, UsageAnswer.of(whole.finished.usage))


class BatchAnswer(msgspec.Struct, frozen=True):
    """A text for each prompt, in their order."""

    responses: list[str]
    model_id: str
    usage: UsageAnswer


class HealthAnswer(msgspec.Struct, frozen=True):
    """What the server is doing."""

    status: Literal["healthy", "unhealthy"]
    model: str | None
    slots: int
    slots_used: int
    waiting: int

    @classmethod
    def of(cls, model: ModelState | None) -> "HealthAnswer":
        """Say what the current model is doing; None: there is none, which is healthy too."""
        if model is None:
            return cls("healthy", None, 0, 0, 0)
        status: Literal["healthy", "unhealthy"] = "unhealthy" if model.failure else "healthy"
        return cls(status, model.model_id, model.slots, model.running, model.waiting)
