"""One request inside the engine: its tokens and how many of them are computed.

Knows no text. What crosses to other threads (`EngineRequest`, `TokenEvent`) is immutable, but
for a request's `Constraint`, which is handed over with it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np

from app.contract.sampling import FinishReason, SamplingParams
from app.engine.drafts import Drafts
from app.engine.prefix_cache import BlockKey
from app.engine.vetoes import Vetoes
from app.errors import EngineFailure
from app.runtime.decoder import CountArray, FloatArray, IdArray


class Constraint(Protocol):
    """Which tokens may come next. One object per sequence, used on the engine's thread alone.

    Whatever its methods raise ends its own sequence and no other.
    """

    def fill_mask(self, mask: CountArray) -> None:
        """Say what may come next.

        Args:
            mask: int32 [ceil(V / 32)], whatever it held before; bit i % 32 of word i // 32
                is to be set where token i is allowed. Stop ids are tokens like others.
        """

    def accept(self, token_id: int) -> None:
        """Take the token that was sampled.

        Raises:
            EngineFailure: it can't come here.
        """

    @property
    def ended(self) -> bool:
        """Whether nothing but the end can follow: the sequence then finishes with `stop`."""


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the text layer asks of the engine."""

    prompt_ids: list[int]
    """At least one, at most the capacity of a slot."""
    max_tokens: int
    """Tokens to generate, at least 1."""
    tenant: str = ""
    """Whose prompt it is: prompts of different tenants share nothing that is kept."""
    client: str = ""
    """Who asks, user or address: clients take turns where requests wait for a slot."""
    adapter: int = 0
    """The adapter that computes it, from 1, by its place in the model's; 0: none."""
    sampling: SamplingParams
    stop_ids: frozenset[int] = frozenset()
    """A sampled id out of these ends the sequence with `stop`."""
    min_tokens: int = 0
    """Stop ids can't be sampled before so many tokens, unless the constraint allows no other."""
    constraint: Constraint | None = None
    """None: any token may come."""
    vetoes: Vetoes | None = None
    """What is ruled out beside it, unless it leaves nothing else; None: nothing is."""
    top_logprobs: int | None = None
    """None: no logprobs; n ≥ 0: for each sampled token its own and those of the n likeliest in
    its place."""
    logprob_ids: tuple[int, ...] = ()
    """Tokens whose logprobs are told beside those of the likeliest, where `top_logprobs` asks for
    any; each once."""
    prompt_logprobs: int | None = None
    """None: no logprobs of the prompt; n ≥ 0: for each prompt token but the first its own and
    those of the n likeliest in its place."""
    progress: bool = False
    """Whether events tell how far the prompt has come: before its first chunk and after each."""
    max_time_s: float | None = None
    """Seconds from submission after which the sequence ends with `length`."""


def check_request(request: EngineRequest, capacity: int, vocab_size: int) -> None:
    """Refuse what a decoder can't run; whoever made the request should have seen it.

    Raises:
        EngineFailure: with the value and its limit.
    """
    if not 1 <= len(request.prompt_ids) <= capacity:
        raise EngineFailure(
            f"the prompt has {len(request.prompt_ids)} tokens, expected 1 to {capacity}"
        )
    if request.max_tokens < 1:
        raise EngineFailure(f"max_tokens is {request.max_tokens}, expected at least 1")
    for name, ids in (
        ("prompt_ids", request.prompt_ids),
        ("stop_ids", request.stop_ids),
        ("logit_bias", request.sampling.logit_bias),
        ("logprob_ids", request.logprob_ids),
        ("vetoes", () if request.vetoes is None else request.vetoes.ids),
    ):
        if ids and not (min(ids) >= 0 and max(ids) < vocab_size):
            wrong = next(token_id for token_id in ids if not 0 <= token_id < vocab_size)
            raise EngineFailure(
                f"{name} has token {wrong}, the model's vocabulary is 0 to {vocab_size - 1}"
            )


class ScoredToken(msgspec.Struct, frozen=True):
    """A token and how likely the model itself held it, before any penalty, mask or temperature."""

    token_id: int
    logprob: float
    """Natural logarithm."""
    top: tuple[tuple[int, float], ...] = ()
    """(token id, logprob) of the likeliest, likeliest first; equal ones by id. Then those of the
    other tokens that were asked for."""
    rank: int = 1
    """1 and how many tokens were likelier."""


class PromptState(msgspec.Struct, frozen=True):
    """How far a sequence's prompt has come."""

    computed_tokens: int
    """Leading tokens whose keys and values are there, the cached ones among them."""
    cached_tokens: int
    """How many of those came out of the prefix cache."""
    time_s: float
    """Since its first chunk began."""


class TokenEvent(msgspec.Struct, frozen=True):
    """One sampled token, the end without one, or news of the prompt."""

    token_id: int | None
    """None when the sequence ended without one more (time limit, cancelled, error, or its
    constraint had ended with the token before), and beside `prompt`."""
    finish_reason: FinishReason | None = None
    """Set on the last event. A stop id is reported in `token_id` with reason `stop`."""
    error: Exception | None = None
    """With reason `error`: what the decoder raised."""
    logprobs: ScoredToken | None = None
    """How likely `token_id` was, if the request asks for it."""
    prompt_logprobs: tuple[ScoredToken, ...] = ()
    """The prompt's tokens from the second to the last, with the first token, if the request asks.
    """
    cached_tokens: int = 0
    """With the first token: prompt tokens that came out of the prefix cache."""
    prompt: PromptState | None = None
    """On an event of its own, before the first token; only if the request asks."""


class TokenCounts:
    """How often each token occurred, in two growing arrays, ready to index a row of logits."""

    def __init__(self, token_ids: Iterable[int] = ()) -> None:
        counts = Counter(token_ids)
        self._places = {token_id: place for place, token_id in enumerate(counts)}
        self._ids = np.fromiter(counts, np.int64, len(counts))
        self._counts = np.fromiter(counts.values(), np.int32, len(counts))

    def add(self, token_id: int) -> None:
        """Count one more token."""
        place = self._places.setdefault(token_id, len(self._places))
        if place == self._ids.size:
            more = place + 16
            self._ids = np.concatenate([self._ids, np.zeros(more, np.int64)])
            self._counts = np.concatenate([self._counts, np.zeros(more, np.int32)])
        self._ids[place] = token_id
        self._counts[place] += 1

    @property
    def ids(self) -> IdArray:
        """int64 [N], each id once, in no particular order."""
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> CountArray:
        """int32 [N], each at least 1, in the order of `ids`."""
        return self._counts[: len(self._places)]


@dataclass(slots=True, eq=False)
class Sequence:
    """The engine's own state of one request; lives on the engine thread alone."""

    request_id: int
    request: EngineRequest
    deadline_s: float | None
    rng: np.random.Generator
    token_ids: list[int]
    """Prompt, then what was sampled."""
    seen: TokenCounts | None
    """Counts of all tokens so far; kept only where the repetition penalty needs them."""
    generated: TokenCounts | None
    """Counts of the sampled tokens; kept only where presence or frequency penalty needs them."""
    bias: tuple[IdArray, FloatArray] | None
    """Token ids and what is added to their logits."""
    mask: CountArray | None
    """A buffer for the constraint to fill, again and again."""
    prompt_logprobs: list[ScoredToken] = field(default_factory=list)
    """The prompt's tokens from the second to the last one whose logits have been seen."""
    slot: int | None = None
    """Its place in the KV cache; None while it waits for one. The scheduler alone writes it."""
    num_computed: int = 0
    """Leading tokens whose keys and values the slot holds. The engine alone writes it."""
    cached_tokens: int = 0
    """How many of those came out of the prefix cache."""
    block_keys: list[BlockKey] = field(default_factory=list)
    """Keys of the prompt's blocks that may be kept or taken from what is kept."""
    num_kept: int = 0
    """Leading blocks that are kept, or could not be."""
    prompt_began_s: float | None = None
    """When its first chunk began; kept only where progress is told."""
    drafts: Drafts | None = None
    """Proposes draft tokens, where speculative decoding is on."""

    @classmethod
    def start(
        cls, request_id: int, request: EngineRequest, vocab_size: int, now_s: float
    ) -> "Sequence":
        """Make a sequence that waits for its slot."""
        token_ids = list(request.prompt_ids)
        limit = request.max_time_s
        sampling = request.sampling
        bias = sampling.logit_bias
        counted = sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0
        return cls(
            request_id=request_id,
            request=request,
            deadline_s=None if limit is None else now_s + limit,
            rng=_generator(sampling.seed),
            token_ids=token_ids,
            seen=TokenCounts(token_ids) if sampling.repetition_penalty != 1.0 else None,
            generated=TokenCounts() if counted else None,
            bias=(
                (np.array(list(bias), np.int64), _as_float32(list(bias.values()))) if bias else None
            ),
            mask=(
                np.empty(-(-vocab_size // 32), np.int32) if request.constraint is not None else None
            ),
        )

    def append(self, token_id: int) -> None:
        """Take a sampled token."""
        self.token_ids.append(token_id)
        if self.seen is not None:
            self.seen.add(token_id)
        if self.generated is not None:
            self.generated.add(token_id)

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
        return self.num_computed < self.num_prompt


def _generator(seed: int | None) -> np.random.Generator:
    """Make a generator from a seed of any size and sign; None draws one."""
    # NumPy refuses negative seeds, but takes several numbers as one
    return np.random.default_rng(seed if seed is None or seed >= 0 else [1, -seed])


def _as_float32(values: list[float]) -> FloatArray:
    """Round to float32; what is beyond its limits stops at them."""
    limits = np.finfo(np.float32)
    return np.clip(np.array(values, np.float64), limits.min, limits.max).astype(np.float32)
