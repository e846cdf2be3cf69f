"""What OpenAI's clients send and get, as far as several endpoints share it.

An absent field and an explicit null mean the default. Fields that nobody knows are refused, as
OpenAI does; what becomes of those that we know and don't have is in `taken`. Those that change
nothing here say so in their description.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from app.contract.generation import GenerationRequest, Usage
from app.dialects.openai.structured import Structured

TEXT_ALONE: Final = "models here read text alone"
FINGERPRINT: Final = f"llmhost-{version('llmhost')}"
"""What answers say of the software that made them."""
MAX_CHOICES: Final = 2048
"""Choices that one request may ask for: a list of them is made before the engine can refuse it."""

ModelId = Annotated[
    str,
    Meta(
        min_length=1,
        description="Loaded first where it is only on disk. Default: the one used last.",
        examples=["HuggingFaceTB/SmolLM2-135M-Instruct"],
    ),
]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Effort = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=16,
        pattern="^[a-z]+$",
        description="`none`: the model doesn't think; `minimal`, `low` and `medium`: at most 128, "
        "1,024 and 4,096 tokens of thinking; any other: as long as it likes.",
    ),
]
ThinkingBudget = Annotated[int, Meta(ge=0, le=2**31 - 1, description="Tokens of thinking at most.")]
ROLE: Final = "^[A-Za-z0-9_-]+$"
"""What a role may be: it stands between the marks of a chat template."""
NOT_USED: Final = "Taken and not used."
Label = Annotated[str, Meta(description=NOT_USED)]
Metadata = Annotated[dict[str, Any], Meta(max_length=64)]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a stream is written."""

    include_usage: Annotated[
        bool | None, Meta(description="One more chunk, with the usage and no choices.")
    ] = None
    continuous_usage_stats: Annotated[
        bool | None, Meta(description="Every chunk tells the usage so far, with include_usage.")
    ] = None
    include_obfuscation: Annotated[bool | None, Meta(description=NOT_USED)] = None


class GenerationOptions(Structured, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that chat completions and completions share."""

    model: ModelId | None = None
    n: Annotated[int, Meta(ge=1, le=128)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: Label = ""

    def choices(self, **fields: Any) -> list[GenerationRequest]:
        """Make `n` requests that differ in their seeds alone.

        Args:
            **fields: of the request, what the endpoint has beyond this.

        Raises:
            InvalidParameter: fields contradict each other.
        """
        wanted, field = self.wanted_format()
        request = self.sampled(response_format=wanted, format_field=field, **fields)
        seed = request.sampling.seed
        if seed is None:
            return [request] * self.n
        return [
            msgspec.structs.replace(
                request,
                sampling=msgspec.structs.replace(request.sampling, seed=(seed + index) % 2**64),
            )
            for index in range(self.n)
        ]

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        """Whether every chunk tells the usage so far."""
        options = self.stream_options
        return self.include_usage and options is not None and bool(options.continuous_usage_stats)


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
            CompletionTokensDetails(sum(usage.reasoning_tokens for usage in usages.values())),
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
