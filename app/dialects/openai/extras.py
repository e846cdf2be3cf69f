"""What answers tell beside OpenAI's own fields, where a request asks for it.

As vLLM writes it, or llama.cpp where vLLM has none.
"""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta

from app.contract.tokens import PromptLogprobs, PromptToken, TokenLogprob
from app.contract.usage import PromptProgress, Timings, Usage

VERSION: Final = version("llmhost")
# JSON has no infinity; this is what OpenAI writes for a token that can't be.
_LOWEST_LOGPROB = -9999.0


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for."""

    usage: bool = False
    """A stream ends with its usage."""
    continuous_usage: bool = False
    """Every chunk tells the usage so far."""
    token_ids: bool = False
    """The prompt's tokens, and each choice's."""
    tokens_as_ids: bool = False
    """Logprobs name tokens by their ids, so that different ones never look alike."""
    timings: bool = False
    """How long reading and writing take; every chunk of a stream tells it so far."""
    progress: bool = False
    """How far the prompt has come, in chunks of a stream before its text."""
    prompt_logprobs: int | None = None
    """None: none; else of each token of the prompt, and of so many others in its place."""


class SoFar(Protocol):
    """The generations of an answer, as far as they have come."""

    @property
    def model_id(self) -> str:
        """The model that writes."""

    @property
    def digest(self) -> str:
        """SHA-256 of the model's files."""

    def timings(self, index: int) -> Timings | None:
        """How long a choice has taken; None before its first token."""

    def usage(self, index: int) -> Usage:
        """Tokens that a choice has cost."""

    def prompt_ids(self, index: int) -> Sequence[int]:
        """The tokens of a choice's prompt."""

    def token_ids(self, index: int) -> Sequence[int]:
        """Every token of a choice."""


class TimingsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and milliseconds, by llama.cpp's names."""

    cache_n: Annotated[int, Meta(description="Prompt tokens out of the cache.")]
    prompt_n: Annotated[int, Meta(description="Prompt tokens that were computed.")]
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: Annotated[int, Meta(description="Generated tokens.")]
    predicted_ms: Annotated[float, Meta(description="From the first token to the latest.")]
    predicted_per_token_ms: float
    predicted_per_second: float

    @classmethod
    def of(cls, timings: Timings) -> "TimingsAnswer":
        """Make them from the contract's record; a figure per nothing is 0."""
        prompt_ms, predicted_ms = 1000 * timings.prompt_s, 1000 * timings.generation_s
        # the first token comes with the prompt's own time
        steps = max(timings.generated_tokens - 1, 0)
        return cls(
            cache_n=timings.cached_tokens,
            prompt_n=timings.prompt_tokens,
            prompt_ms=prompt_ms,
            prompt_per_token_ms=_per(prompt_ms, timings.prompt_tokens),
            prompt_per_second=_per(timings.prompt_tokens, timings.prompt_s),
            predicted_n=timings.generated_tokens,
            predicted_ms=predicted_ms,
            predicted_per_token_ms=_per(predicted_ms, steps),
            predicted_per_second=_per(steps, timings.generation_s),
        )


class ProgressAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How far a prompt has come, by llama.cpp's names."""

    total: int
    cache: Annotated[int, Meta(description="Prompt tokens out of the cache.")]
    processed: Annotated[int, Meta(description="Those and the ones that were computed.")]
    time_ms: int

    @classmethod
    def of(cls, progress: PromptProgress) -> "ProgressAnswer":
        """Make it from the contract's record."""
        return cls(
            total=progress.total_tokens,
            cache=progress.cached_tokens,
            processed=progress.processed_tokens,
            time_ms=int(1000 * progress.time_s),
        )


class PromptFigure(msgspec.Struct, frozen=True):
    """How likely a token was in its place of the prompt."""

    logprob: float
    rank: Annotated[int, Meta(description="1 and how many tokens were likelier.")]
    decoded_token: str


PromptFigures = list[dict[str, PromptFigure] | None]
"""For each token of a prompt its own figures and those of the likeliest in its place, by token id;
null for the first, which nothing comes before."""


def prompt_figures(prompt: PromptLogprobs, most: int) -> PromptFigures:
    """Make a prompt's figures.

    Args:
        prompt: with at least `most` of the likeliest.
        most: how many of the likeliest to tell beside each token's own.
    """
    return [
        None if one.logprob is None else _figures(one, one.logprob, most) for one in prompt.tokens
    ]


def fingerprint(so_far: SoFar) -> str:
    """Name what makes answers: it changes with the model's files and the server's version."""
    made_by = f"{VERSION}\n{so_far.digest}\n".encode()
    return f"fp_{hashlib.sha256(made_by).hexdigest()[:10]}"


def timings_of(so_far: SoFar, index: int) -> TimingsAnswer | None:
    """Tell how long a choice has taken; None before its first token."""
    timings = so_far.timings(index)
    return None if timings is None else TimingsAnswer.of(timings)


def named(token: TokenLogprob | PromptToken, *, as_id: bool) -> str:
    """What a token is called in logprobs."""
    return f"token_id:{token.token_id}" if as_id else token.text


def finite(logprob: float) -> float:
    """Bound a logprob below: JSON has no infinity."""
    return max(logprob, _LOWEST_LOGPROB)


def _per(amount: float, of: float) -> float:
    return amount / of if of else 0.0


def _figures(token: PromptToken, logprob: float, most: int) -> dict[str, PromptFigure]:
    assert token.rank is not None, "a token with a logprob has a rank"
    figures = {str(token.token_id): PromptFigure(finite(logprob), token.rank, token.text)}
    for place, other in enumerate(token.top[:most], start=1):
        figures.setdefault(
            str(other.token_id), PromptFigure(finite(other.logprob), place, other.text)
        )
    return figures
