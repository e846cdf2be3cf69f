"""How tokens are chosen, and why a text ends."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta


class FinishReason(StrEnum):
    """Why a text ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


class SamplingDefaults(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a model's makers would have tokens chosen where a request leaves it open; None: not said.

    The names are those of `SamplingParams`.
    """

    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is chosen; applied in the order of the fields."""

    logit_bias: Mapping[int, float] = {}
    """What is added to a token's logit, by token id."""
    repetition_penalty: float = 1.0
    """1 is off; over prompt and generated tokens, as in Transformers."""
    presence_penalty: float = 0.0
    """0 is off; subtracted once from every token that was generated, as in OpenAI's API."""
    frequency_penalty: float = 0.0
    """0 is off; subtracted as often as a token was generated, as in OpenAI's API."""
    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """0 is off."""
    top_p: float = 1.0
    """1 is off."""
    min_p: float = 0.0
    """0 is off; drops what is less likely than `min_p` times the likeliest token."""
    seed: int | None = None
    """None draws one."""

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken without drawing."""
        return self.temperature == 0.0 or self.top_k == 1

    def completed(self, left_open: Collection[str], defaults: SamplingDefaults) -> "SamplingParams":
        """These parameters, with the model's own in place of those that a request left open."""
        recommended = {name: getattr(defaults, name) for name in left_open}
        said = {name: value for name, value in recommended.items() if value is not None}
        return msgspec.structs.replace(self, **said)
