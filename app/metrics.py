"""What the server counts and measures, for Prometheus.

Stems, labels and buckets are vLLM's, so that a dashboard made for it needs `vllm:` replaced by
`llmhost_` and nothing else. Not `llmhost:`, for Prometheus keeps the colon for the names of its
users' own rules and its linter refuses it elsewhere. Labels are models on disk, finish reasons
and error codes: never what a client could make up.

Knows no HTTP and no engine; an engine attaches a function that tells its state.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, NamedTuple, Self, get_args, get_type_hints

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from app.engine_gauges import MODEL, PREFIX, EngineGauges, ReadState
from app.errors import Error

FINISHED_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "cancelled": "abort",
    "error": "error",
}
"""Our finish reasons → the values that dashboards know."""

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


class RequestTimes(NamedTuple):
    """When a request was where, in seconds on the engine's clock, and what it cost."""

    submitted_s: float
    admitted_s: float | None
    """None: it has never had a slot."""
    first_token_s: float | None
    last_token_s: float | None
    prompt_tokens: int
    generated_tokens: int


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
    prompt_length: Annotated[
        Histogram, About("request_prompt_tokens", "Prompt tokens of a request.", REQUEST_TOKENS)
    ]
    answer_length: Annotated[
        Histogram,
        About("request_generation_tokens", "Tokens generated for a request.", REQUEST_TOKENS),
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


class Metrics:
    """All series of one application, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._models: dict[str, ModelMetrics] = {}
        self._engines = EngineGauges()
        self._registry.register(self._engines)
        self._errors = Counter(
            f"{PREFIX}request_errors",
            "Requests answered with an error, by its code.",
            ["code"],
            registry=self._registry,
        )
        for kind in _tree(Error):  # a rate needs the zero before the first
            self._errors.labels(kind.code)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._requests = Counter(
            f"{PREFIX}request_success",
            "Requests that ended, by finish reason; `abort`: the client went.",
            [MODEL, "finished_reason"],
            registry=self._registry,
        )
        self._series = Series.registered(self._registry)

    def model(self, model_id: str) -> "ModelMetrics":
        """The series of one model; the same ones whenever it is loaded again."""
        if model_id not in self._models:
            ended = {
                ours: self._requests.labels(model_id, theirs)
                for ours, theirs in FINISHED_REASONS.items()
            }
            series = self._series.of_model(model_id)
            self._models[model_id] = ModelMetrics(model_id, series, ended, self._engines)
        return self._models[model_id]

    def count_error(self, error: Error) -> None:
        """Count a request that was answered with an error."""
        self._errors.labels(error.code).inc()

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Write all series in the format that an `Accept` header asks for.

        Returns:
            The text and its content type: Prometheus' format, or OpenMetrics.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class ModelMetrics:
    """What is counted of one model."""

    def __init__(
        self, model_id: str, series: Series, ended: Mapping[str, Counter], engines: EngineGauges
    ) -> None:
        self.series = series
        self.ended = ended
        """Requests that ended, by our finish reasons."""
        self._model_id = model_id
        self._engines = engines

    def attach(self, read: ReadState) -> Callable[[], None]:
        """Show an engine's state from now on.

        Returns:
            Call it once when the engine has stopped: its gauges go, its steps stay counted.
        """
        return self._engines.attach(self._model_id, read)

    def submitted(self, num_prompt: int, now_s: float) -> "RequestMeter":
        """Follow a request that goes to the engine; all times are seconds on one clock."""
        return RequestMeter(self, num_prompt, now_s)


class RequestMeter:
    """One request on its way: when it was where."""

    __slots__ = (
        *("_admitted_s", "_first_s", "_last_s", "_model", "_num_prompt"),
        *("_submitted_s", "_tokens"),
    )

    def __init__(self, model: ModelMetrics, num_prompt: int, now_s: float) -> None:
        self._model = model
        self._num_prompt = num_prompt
        self._submitted_s = now_s
        self._admitted_s: float | None = None
        self._first_s = self._last_s = now_s
        self._tokens = 0

    @property
    def times(self) -> RequestTimes:
        """When the request was where, as far as it has come."""
        first_s, last_s = (self._first_s, self._last_s) if self._tokens else (None, None)
        return RequestTimes(
            self._submitted_s, self._admitted_s, first_s, last_s, self._num_prompt, self._tokens
        )

    def admitted(self, at_s: float) -> None:
        """It has a slot; only the first call counts."""
        if self._admitted_s is None:
            self._admitted_s = at_s
            self._model.series.queued.observe(at_s - self._submitted_s)

    def token(self, now_s: float, cached_tokens: int) -> None:
        """It got a token. `cached_tokens` of its prompt were in the prefix cache."""
        series = self._model.series
        if self._tokens:
            series.between_tokens.observe(now_s - self._last_s)
        else:
            self._first_s = now_s
            series.first_token.observe(now_s - self._submitted_s)
            if self._admitted_s is not None:
                series.prefill.observe(now_s - self._admitted_s)
            series.prompt_tokens.inc(self._num_prompt)
            series.prefix_queries.inc(self._num_prompt)
            series.prefix_hits.inc(cached_tokens)
        series.generation_tokens.inc()
        self._tokens += 1
        self._last_s = now_s

    def encoded(self, now_s: float) -> None:
        """Its texts have their vectors; no token is generated for it."""
        series = self._model.series
        self._model.ended["stop"].inc()
        series.prompt_tokens.inc(self._num_prompt)
        series.prompt_length.observe(self._num_prompt)
        series.whole.observe(now_s - self._submitted_s)

    def ended(self, reason: str, now_s: float) -> None:
        """It is over, by one of our finish reasons."""
        model = self._model
        series = model.series
        model.ended[reason].inc()
        if reason in ("stop", "length"):  # the others say when somebody lost patience
            series.whole.observe(now_s - self._submitted_s)
            series.prompt_length.observe(self._num_prompt)
            series.answer_length.observe(self._tokens)
            if self._tokens:
                series.decode.observe(self._last_s - self._first_s)


def _tree(kind: type[Error]) -> Iterator[type[Error]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
