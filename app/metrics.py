"""What the server counts and measures, for Prometheus.

Stems, labels and buckets are vLLM's, so that a dashboard made for it needs `vllm:` replaced by
`llmhost_` and nothing else. Not `llmhost:`, for Prometheus keeps the colon for the names of its
users' own rules and its linter refuses it elsewhere. Labels are models on disk, finish reasons
and error codes: never what a client could make up.

Knows no HTTP and no engine; an engine attaches a function that tells its state.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

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
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.errors import Error

PREFIX: Final = "llmhost_"
MODEL: Final = "model_name"
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


class EngineState(msgspec.Struct, frozen=True):
    """What one engine is doing at the moment of a scrape."""

    slots: int
    running: int
    waiting: int
    kv_usage: float
    """Share of the cache's tokens in use, 0 … 1."""
    steps: int
    """Since the engine's start."""


ReadState = Callable[[], EngineState]


class Metrics:
    """All series of one application, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._models: dict[str, ModelMetrics] = {}
        self._engines = _Engines()
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
        self.requests = self._counter(
            "request_success",
            "Requests that ended, by finish reason; `abort`: the client went.",
            "finished_reason",
        )
        self.prompt_tokens = self._counter(
            "prompt_tokens", "Prompt tokens of requests that got a first token."
        )
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated.")
        self.prefix_queries = self._counter(
            "prefix_cache_queries", "Prompt tokens that the prefix cache could have held."
        )
        self.prefix_hits = self._counter(
            "prefix_cache_hits", "Prompt tokens that came out of the prefix cache."
        )
        self.first_token = self._histogram(
            "time_to_first_token_seconds", "From submission to the first token.", FIRST_TOKEN_S
        )
        self.between_tokens = self._histogram(
            "inter_token_latency_seconds", "From one token to the next.", BETWEEN_TOKENS_S
        )
        self.whole = self._histogram(
            "e2e_request_latency_seconds",
            "From submission to the end, of requests that ended by stop or length.",
            WHOLE_REQUEST_S,
        )
        self.queued = self._histogram(
            "request_queue_time_seconds", "From submission until it had a slot.", WHOLE_REQUEST_S
        )
        self.prefill = self._histogram(
            "request_prefill_time_seconds", "From slot to first token.", WHOLE_REQUEST_S
        )
        self.decode = self._histogram(
            "request_decode_time_seconds", "From first to last token.", WHOLE_REQUEST_S
        )
        self.prompt_length = self._histogram(
            "request_prompt_tokens", "Prompt tokens of a request.", REQUEST_TOKENS
        )
        self.answer_length = self._histogram(
            "request_generation_tokens", "Tokens generated for a request.", REQUEST_TOKENS
        )

    def model(self, model_id: str) -> "ModelMetrics":
        """The series of one model; the same ones whenever it is loaded again."""
        if model_id not in self._models:
            self._models[model_id] = ModelMetrics(self, self._engines, model_id)
        return self._models[model_id]

    def count_error(self, error: Error) -> None:
        """A request was answered with an error."""
        self._errors.labels(error.code).inc()

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Write all series in the format that an `Accept` header asks for.

        Returns:
            The text and its content type: Prometheus' format, or OpenMetrics.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _counter(self, stem: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + stem, text, [MODEL, *labels], registry=self._registry)

    def _histogram(self, stem: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(PREFIX + stem, text, [MODEL], buckets=buckets, registry=self._registry)


class ModelMetrics:
    """The series of one model, looked up once: a token has no time for that."""

    def __init__(self, series: Metrics, engines: "_Engines", model_id: str) -> None:
        self._engines, self._model_id = engines, model_id
        self.requests = {
            ours: series.requests.labels(model_id, theirs)
            for ours, theirs in FINISHED_REASONS.items()
        }
        self.prompt_tokens = series.prompt_tokens.labels(model_id)
        self.generation_tokens = series.generation_tokens.labels(model_id)
        self.prefix_queries = series.prefix_queries.labels(model_id)
        self.prefix_hits = series.prefix_hits.labels(model_id)
        self.first_token = series.first_token.labels(model_id)
        self.between_tokens = series.between_tokens.labels(model_id)
        self.whole = series.whole.labels(model_id)
        self.queued = series.queued.labels(model_id)
        self.prefill = series.prefill.labels(model_id)
        self.decode = series.decode.labels(model_id)
        self.prompt_length = series.prompt_length.labels(model_id)
        self.answer_length = series.answer_length.labels(model_id)

    def attach(self, read: ReadState) -> Callable[[], None]:
        """Show an engine's state from now on.

        Returns:
            Call it once when the engine has stopped: its gauges go, its steps stay counted.
        """
        return self._engines.attach(self._model_id, read)

    def submitted(self, num_prompt: int, now_s: float) -> "RequestMeter":
        """A request goes to the engine; all its times are seconds on the same clock."""
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

    def admitted(self, at_s: float) -> None:
        """It has a slot; only the first call counts."""
        if self._admitted_s is None:
            self._admitted_s = at_s
            self._model.queued.observe(at_s - self._submitted_s)

    def token(self, now_s: float, cached_tokens: int) -> None:
        """It got a token. `cached_tokens` of its prompt were in the prefix cache."""
        model = self._model
        if self._tokens:
            model.between_tokens.observe(now_s - self._last_s)
        else:
            self._first_s = now_s
            model.first_token.observe(now_s - self._submitted_s)
            if self._admitted_s is not None:
                model.prefill.observe(now_s - self._admitted_s)
            model.prompt_tokens.inc(self._num_prompt)
            model.prefix_queries.inc(self._num_prompt)
            model.prefix_hits.inc(cached_tokens)
        model.generation_tokens.inc()
        self._tokens += 1
        self._last_s = now_s

    def ended(self, reason: str, now_s: float) -> None:
        """It is over, by one of our finish reasons."""
        model = self._model
        model.requests[reason].inc()
        if reason in ("stop", "length"):  # the others say when somebody lost patience
            model.whole.observe(now_s - self._submitted_s)
            model.prompt_length.observe(self._num_prompt)
            model.answer_length.observe(self._tokens)
            if self._tokens:
                model.decode.observe(self._last_s - self._first_s)


class _Engines(Collector):
    """Gauges of engines that are in memory, read when they are asked for."""

    def __init__(self) -> None:
        self._attached: dict[str, ReadState] = {}
        self._ended_steps: dict[str, int] = {}
        """By model, of engines that have gone."""

    def attach(self, model_id: str, read: ReadState) -> Callable[[], None]:
        # Prometheus refuses a whole scrape for one series that is there twice.
        assert model_id not in self._attached, f"{model_id} is in memory twice"
        self._attached[model_id] = read
        self._ended_steps.setdefault(model_id, 0)

        def detach() -> None:
            del self._attached[model_id]
            self._ended_steps[model_id] += read().steps

        return detach

    def collect(self) -> Iterator[Metric]:
        states = [(model_id, read()) for model_id, read in self._attached.items()]
        loaded = GaugeMetricFamily(f"{PREFIX}models_loaded", "Models in memory.")
        loaded.add_metric([], len(states))
        yield loaded
        yield _gauge("slots", "Requests that can run at once.", ((m, s.slots) for m, s in states))
        yield _gauge(
            "num_requests_running", "Requests in a slot.", ((m, s.running) for m, s in states)
        )
        yield _gauge(
            "num_requests_waiting",
            "Requests taken and not yet in a slot.",
            ((m, s.waiting) for m, s in states),
        )
        yield _gauge(
            "kv_cache_usage_perc",
            "Share of the KV cache's tokens in use; 1 is all.",
            ((m, s.kv_usage) for m, s in states),
        )
        steps = dict(self._ended_steps)
        for model_id, state in states:
            steps[model_id] += state.steps
        counter = CounterMetricFamily(f"{PREFIX}engine_steps", "Engine steps.", labels=[MODEL])
        for model_id, count in steps.items():
            counter.add_metric([model_id], count)
        yield counter


def _gauge(stem: str, text: str, values: Iterable[tuple[str, float]]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(PREFIX + stem, text, labels=[MODEL])
    for model_id, value in values:
        gauge.add_metric([model_id], value)
    return gauge


def _tree(kind: type[Error]) -> Iterator[type[Error]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
