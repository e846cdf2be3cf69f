"""What OpenAI's clients send and get, as far as several endpoints share it.

An absent field and an explicit null mean the default. Fields that nobody knows are refused, as
OpenAI does; what becomes of those that we know and don't have is in `taken`. Those that change
nothing here say so in their description.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from app.contract.generation import GenerationRequest
from app.contract.usage import Usage
from app.dialects.openai.extras import Extras
from app.dialects.openai.structured import Structured
from app.errors import InvalidParameter

TEXT_ALONE: Final = "models here read text alone"
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
TemplateVariables = Annotated[
    dict[str, bool | int | float | str | None],
    Meta(max_length=32, description="Further variables of the model's chat template."),
]
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
    prompt_logprobs: Annotated[
        Annotated[int, Meta(ge=0, le=20)] | None,
        Meta(description="Of each token of the prompt, and of so many others; not in streams."),
    ] = None
    return_token_ids: Annotated[
        bool, Meta(description="Whether the answer has the ids of prompt and choices too.")
    ] = False
    timings_per_token: Annotated[
        bool, Meta(description="Tell `timings` as llama.cpp has them; in a stream, in every chunk.")
    ] = False
    return_progress: Annotated[
        bool, Meta(description="Tell `prompt_progress` in a stream while the prompt is read.")
    ] = False
    return_tokens_as_token_ids: Annotated[
        bool, Meta(description="Whether logprobs name tokens by their ids, `token_id:123`.")
    ] = False

    def choices(self, **fields: Any) -> list[GenerationRequest]:
        """Make `n` requests that differ in their seeds.

        The first one alone asks for the prompt's figures: the others have the same prompt.

        Args:
            **fields: of the request, what the endpoint has beyond this.

        Raises:
            InvalidParameter: fields contradict each other.
        """
        wanted, field = self.wanted_format()
        if self.prompt_logprobs is not None and self.stream:
            limit = "none with stream: true"
            raise InvalidParameter("prompt_logprobs", self.prompt_logprobs, limit)
        request = self.sampled(
            response_format=wanted,
            format_field=field,
            progress=self.extras.progress,
            **fields,
        )
        seed = request.sampling.seed
        choices = [request] * self.n
        if seed is not None:
            choices = [
                msgspec.structs.replace(
                    request,
                    sampling=msgspec.structs.replace(request.sampling, seed=(seed + index) % 2**64),
                )
                for index in range(self.n)
            ]
        wanted_of_prompt = [self.prompt_logprobs, request.prompt_logprobs]
        figures = max((most for most in wanted_of_prompt if most is not None), default=None)
        return [
            msgspec.structs.replace(choice, prompt_logprobs=None if index else figures)
            for index, choice in enumerate(choices)
        ]

    @property
    def extras(self) -> Extras:
        """What the answer tells beside OpenAI's own fields."""
        options = self.stream_options or StreamOptions()
        usage = bool(options.include_usage)
        return Extras(
            usage=usage,
            continuous_usage=usage and bool(options.continuous_usage_stats),
            token_ids=self.return_token_ids,
            timings=self.timings_per_token,
            progress=self.stream and self.return_progress,
            tokens_as_ids=self.return_tokens_as_token_ids,
            prompt_logprobs=self.prompt_logprobs,
        )


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
