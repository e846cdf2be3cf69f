"""What OpenAI's clients send and get, as far as several endpoints share it.

An absent field and an explicit null mean the default. Fields that nobody knows are refused, as
OpenAI does; so are those that we know and can't serve, with the reason. Those that change
nothing here say so in their description.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from app.contract.generation import GenerationRequest, Usage
from app.contract.sampling import SamplingParams
from app.dialects.kit.body import Body, to_record
from app.errors import InvalidParameter, Unsupported

T = TypeVar("T", bound=msgspec.Struct)

MAX_CHOICES: Final = 2048
"""Choices that one request may ask for: a list of them is made before the engine can refuse it."""

ModelId = Annotated[
    str,
    Meta(
        min_length=1,
        description="Loaded first where it is only on disk.",
        examples=["HuggingFaceTB/SmolLM2-135M-Instruct"],
    ),
]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
StopString = Annotated[str, Meta(min_length=1, max_length=1024)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Temperature = Annotated[float, Meta(ge=0, le=2, description="0 is greedy.")]
TopP = Annotated[float, Meta(ge=0, le=1, description="0 is greedy.")]
NOT_USED: Final = "Taken and not used."
Label = Annotated[str, Meta(description=NOT_USED)]
Metadata = Annotated[dict[str, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]


class Unserved(NamedTuple):
    """A field that we know and can't serve."""

    reason: str
    harmless: tuple[Any, ...] = ()
    """Values that ask for nothing."""


TEXT_ALONE: Final = "models here read text alone"
NO_REASONING: Final = "models here don't reason apart from their answer"
UNSERVED: Final[Mapping[str, Unserved]] = {
    "moderation": Unserved("there is no moderation model"),
    "prompt_cache_options": Unserved("prompt caching has no options"),
    "prompt_cache_retention": Unserved("nothing is kept for a given time", ("in_memory",)),
    "service_tier": Unserved("there is one tier", ("auto", "default")),
    "verbosity": Unserved("models here know no verbosity", ("medium",)),
}
"""Fields that neither chat completions nor responses serve."""


def read(body: Body, kind: type[T], unserved: Mapping[str, Unserved]) -> T:
    """Check a body's fields against a record's and against what we can't serve.

    Raises:
        InvalidParameter, UnknownParameter, Unsupported: the first field that is wrong.
    """
    for name, rule in unserved.items():
        value = body.get(name)
        if value is not None and value not in rule.harmless:
            raise Unsupported(name, value, rule.reason)
    return to_record({k: v for k, v in body.items() if k not in unserved}, kind)


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a stream is written."""

    include_usage: Annotated[
        bool | None, Meta(description="One more chunk, with the usage and no choices.")
    ] = None
    include_obfuscation: Annotated[bool | None, Meta(description=NOT_USED)] = None


class GenerationOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that chat completions and completions share."""

    model: ModelId
    temperature: Temperature = 1.0
    top_p: TopP = 1.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    logit_bias: Annotated[
        dict[str, Annotated[float, Meta(ge=-100, le=100)]],
        Meta(max_length=1024, description="By token id.", examples=[{"50256": -100}]),
    ] = {}
    n: Annotated[int, Meta(ge=1, le=128)] = 1
    seed: Annotated[
        Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None,
        Meta(description="The same request with the same seed gives the same text."),
    ] = None
    stop: Annotated[
        StopString | Annotated[list[StopString], Meta(max_length=16)],
        Meta(description="The text ends before the first of these."),
    ] = []
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: Label = ""
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1, description="0 and -1 are off.")] = 0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0, le=2, description="1 is off.")] = 1.0
    ignore_eos: Annotated[bool, Meta(description="Go on where the model would end.")] = False
    min_tokens: Annotated[
        int, Meta(ge=0, le=2**31 - 1, description="The model can't end before so many.")
    ] = 0
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=64)] = []

    def choices(self, **fields: Any) -> list[GenerationRequest]:
        """Make `n` requests that differ in their seeds alone.

        Args:
            **fields: of the request, what the endpoint has beyond this.

        Raises:
            InvalidParameter: fields contradict each other.
        """
        if self.stream_options is not None and not self.stream:
            sent = msgspec.to_builtins(self.stream_options).items()
            given = {name: value for name, value in sent if value is not None}
            raise InvalidParameter("stream_options", given, "none without stream: true")
        # top_p 0 leaves the likeliest token alone, as temperature 0 does
        greedy = self.temperature == 0 or self.top_p == 0
        sampling = SamplingParams(
            logit_bias=self._logit_bias(),
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            temperature=0.0 if greedy else self.temperature,
            top_k=max(0, self.top_k),
            top_p=self.top_p or 1.0,
            min_p=self.min_p,
        )
        request = GenerationRequest(
            sampling=sampling,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop),
            stop_token_ids=tuple(self.stop_token_ids),
            min_tokens=self.min_tokens,
            ignore_eos=self.ignore_eos,
            **fields,
        )
        if self.seed is None:
            return [request] * self.n
        return [
            msgspec.structs.replace(
                request,
                sampling=msgspec.structs.replace(sampling, seed=(self.seed + index) % 2**64),
            )
            for index in range(self.n)
        ]

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def _logit_bias(self) -> dict[int, float]:
        for token_id in self.logit_bias:
            if not (token_id.isascii() and token_id.isdigit() and len(token_id) <= 10):
                raise InvalidParameter("logit_bias", self.logit_bias, "token ids as its keys")
        return {int(token_id): bias for token_id, bias in self.logit_bias.items()}


class PromptTokensDetails(msgspec.Struct, frozen=True):
    """How many of the prompt's tokens were cached."""

    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct, frozen=True):
    """How many of the generated tokens were reasoning."""

    reasoning_tokens: int = 0


class UsageAnswer(msgspec.Struct, frozen=True):
    """Tokens that a request cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails

    @classmethod
    def of(cls, usages: Mapping[int, Usage], n: int) -> "UsageAnswer":
        """Sum up: a prompt counts once, however many choices it has.

        Args:
            usages: by the choice's index.
            n: choices of a prompt, whose indexes follow each other.
        """
        firsts = [usage for index, usage in usages.items() if index % n == 0]
        prompt = sum(usage.prompt_tokens for usage in firsts)
        completion = sum(usage.completion_tokens for usage in usages.values())
        return cls(
            prompt,
            completion,
            prompt + completion,
            PromptTokensDetails(sum(usage.cached_tokens for usage in firsts)),
            CompletionTokensDetails(),
        )


class ErrorDetail(msgspec.Struct, frozen=True):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(msgspec.Struct, frozen=True):
    """Any refusal or failure."""

    error: ErrorDetail
