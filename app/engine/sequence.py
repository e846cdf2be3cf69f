"""One request inside the engine: its tokens and how far the cache has come.

Knows no text. What crosses to other threads (`EngineRequest`, `TokenEvent`) is immutable.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import numpy as np

from app.runtime.decoder import IdArray


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is chosen; applied in the order of the fields, as in Transformers."""

    repetition_penalty: float = 1.0
    """1 is off; over prompt and generated tokens."""
    temperature: float = 1.0
    """0 is greedy."""
    top_k: int = 0
    """0 is off."""
    top_p: float = 1.0
    """1 is off."""
    seed: int | None = None
    """None draws one."""

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken without drawing."""
        return self.temperature == 0.0 or self.top_k == 1


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the text layer asks of the engine."""

    prompt_ids: list[int]
    """At least one, at most the capacity of a row."""
    max_tokens: int
    """Tokens to generate, at least 1."""
    sampling: SamplingParams
    stop_ids: frozenset[int] = frozenset()
    """A sampled id out of these ends the sequence with `stop`."""
    max_time_s: float | None = None
    """Seconds from submission after which the sequence ends with `length`."""


class TokenEvent(msgspec.Struct, frozen=True):
    """One sampled token, or the end without one."""

    token_id: int | None
    """None when the sequence ended between steps (time limit, cancelled, error)."""
    finish_reason: FinishReason | None = None
    """Set on the last event. A stop id is reported in `token_id` with reason `stop`."""
    error: Exception | None = None
    """With reason `error`: what the decoder raised."""


class SeenIds:
    """Distinct token ids in one growing array, ready to index a row of logits."""

    def __init__(self, token_ids: Iterable[int]) -> None:
        self._known = set(token_ids)
        self._count = len(self._known)
        self._array = np.fromiter(self._known, np.int64, self._count)

    def add(self, token_id: int) -> None:
        """Note one more token."""
        if token_id in self._known:
            return
        if self._count == self._array.size:
            self._array = np.resize(self._array, 2 * self._count + 16)
        self._array[self._count] = token_id
        self._known.add(token_id)
        self._count += 1

    @property
    def ids(self) -> IdArray:
        """int64 [N], each id once, in no particular order."""
        return self._array[: self._count]


@dataclass(slots=True, eq=False)
class Sequence:
    """The engine's own state of one request; lives on the engine thread alone."""

    request_id: int
    request: EngineRequest
    deadline_s: float | None
    rng: np.random.Generator
    token_ids: list[int]
    """Prompt, then what was sampled."""
    seen: SeenIds | None
    """Distinct tokens so far; kept only where a penalty needs them."""
    num_cached: int = 0
    """Leading tokens of `token_ids` that the KV cache holds."""
    slot: int | None = None

    @classmethod
    def start(cls, request_id: int, request: EngineRequest, now_s: float) -> "Sequence":
        """A sequence that waits for its row."""
        token_ids = list(request.prompt_ids)
        limit = request.max_time_s
        return cls(
            request_id=request_id,
            request=request,
            deadline_s=None if limit is None else now_s + limit,
            rng=np.random.default_rng(request.sampling.seed),
            token_ids=token_ids,
            seen=SeenIds(token_ids) if request.sampling.repetition_penalty != 1.0 else None,
        )

    def append(self, token_id: int) -> None:
        """Take a sampled token."""
        self.token_ids.append(token_id)
        if self.seen is not None:
            self.seen.add(token_id)

    @property
    def num_prompt(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt_ids)

    @property
    def num_generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.token_ids) - self.num_prompt

    @property
    def prefilling(self) -> bool:
        """Whether prompt tokens are still to be fed."""
        return self.num_cached < self.num_prompt
