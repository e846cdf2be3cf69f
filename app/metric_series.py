"""The series that requests write, their names and buckets: vLLM's, under a prefix of ours.

Knows no request; `metrics` says when one is written.
"""

from typing import Annotated, Any, Final, NamedTuple, Self, get_args, get_type_hints

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram

from app.engine_gauges import MODEL, PREFIX

FIRST_TOKEN_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
    *(20, 40, 80, 160, 640, 2560),
)
# vLLM's begin at 0.01; a small model's steps are shorter.
BETWEEN_TOKENS_S: Final = (
    *(0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5),
    *(7.5, 10, 20, 40, 80),
)
WHOLE_REQUEST_S: Final = (
    *(0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920),
    7680,
)
REQUEST_TOKENS: Final = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000),
)


class About(NamedTuple):
    """A series' name without its prefix, what it says, and a histogram's buckets."""

    stem: str
    text: str
    buckets: tuple[float, ...] = ()


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Every series that a request writes: of all models, or with one model's label bound."""

    prompt_tokens: Annotated[
        Counter, About("prompt_tokens", "Prompt tokens of requests that got a first token.")
    ]
    generation_tokens: Annotated[Counter, About("generation_tokens", "Tokens generated.")]
    prefix_queries: Annotated[
        Counter,
        About("prefix_cache_queries", "Prompt tokens that the prefix cache could have held."),
    ]
    prefix_hits: Annotated[
        Counter, About("prefix_cache_hits", "Prompt tokens that came out of the prefix cache.")
    ]
    first_token: Annotated[
        Histogram,
        About("time_to_first_token_seconds", "From submission to the first token.", FIRST_TOKEN_S),
    ]
    between_tokens: Annotated[
        Histogram,
        About("inter_token_latency_seconds", "From one token to the next.", BETWEEN_TOKENS_S),
    ]
    whole: Annotated[
        Histogram,
        About(
            "e2e_request_latency_seconds",
            "From submission to the end, of requests that ended by stop or length.",
            WHOLE_REQUEST_S,
        ),
    ]
    queued: Annotated[
        Histogram,
        About(
            "request_queue_time_seconds", "From submission until it had a slot.", WHOLE_REQUEST_S
        ),
    ]
    prefill: Annotated[
        Histogram,
        About("request_prefill_time_seconds", "From slot to first token.", WHOLE_REQUEST_S),
    ]
    decode: Annotated[
        Histogram,
        About("request_decode_time_seconds", "From first to last token.", WHOLE_REQUEST_S),
    ]
    inference: Annotated[
        Histogram,
        About("request_inference_time_seconds", "From slot to end.", WHOLE_REQUEST_S),
    ]
    prompt_length: Annotated[
        Histogram, About("request_prompt_tokens", "Prompt tokens of a request.", REQUEST_TOKENS)
    ]
    answer_length: Annotated[
        Histogram,
        About("request_generation_tokens", "Tokens generated for a request.", REQUEST_TOKENS),
    ]

    params_max_tokens: Annotated[
        Histogram,
        About(
            "request_params_max_tokens",
            "Tokens that a request might generate at most.",
            REQUEST_TOKENS,
        ),
    ]
    params_n: Annotated[
        Histogram,
        About(
            "request_params_n",
            "Texts that a request asked for, of all its prompts together.",
            (1, 2, 5, 10, 20),
        ),
    ]

    @classmethod
    def registered(cls, registry: CollectorRegistry) -> Self:
        """Make them for all models."""
        made: dict[str, Any] = {}
        for name, hint in get_type_hints(cls, include_extras=True).items():
            make, about = get_args(hint)
            buckets = {"buckets": about.buckets} if about.buckets else {}
            made[name] = make(
                PREFIX + about.stem, about.text, [MODEL], registry=registry, **buckets
            )
        return cls(**made)

    def of_model(self, model_id: str) -> Self:
        """Bind a model's label, once: a token has no time for that."""
        all_models = msgspec.structs.asdict(self)
        return type(self)(**{name: one.labels(model_id) for name, one in all_models.items()})
