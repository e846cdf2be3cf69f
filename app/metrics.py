"""What the server counts and measures, for Prometheus.

Stems, labels and buckets are vLLM's, so that a dashboard made for it needs `vllm:` replaced by
`llmhost_` and nothing else. Not `llmhost:`, for Prometheus keeps the colon for the names of its
users' own rules and its linter refuses it elsewhere. Labels are models on disk, finish reasons
and error codes: never what a client could make up.

Knows no HTTP and no engine; an engine attaches a function that tells its state.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from app.engine_gauges import MODEL, PREFIX, EngineGauges, ReadState
from app.errors import Error
from app.metric_series import Series

FINISHED_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "cancelled": "abort",
    "error": "error",
}
"""Our finish reasons → the values that dashboards know."""


class RequestTimes(NamedTuple):
    """When a request was where, in seconds on the engine's clock, and what it cost."""

    submitted_s: float
    admitted_s: float | None
    """None: it has never had a slot."""
    first_token_s: float | None
    last_token_s: float | None
    prompt_tokens: int
    generated_tokens: int


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
        self._store = Gauge(
            f"{PREFIX}store_up",
            "1: the store that replicas share answers, or there is none; 0: it is away.",
            registry=self._registry,
        )
        self._store.set(1)

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

    def store_answers(self, answers: bool) -> None:  # a change, told as it is
        """Note whether the store that replicas share answers."""
        self._store.set(answers)

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

    def submitted(
        self, num_prompt: int, now_s: float, *, max_tokens: int = 0, choices: int = 0
    ) -> "RequestMeter":
        """Follow a request that goes to the engine.

        Args:
            num_prompt: tokens of its prompt.
            now_s: seconds on the clock of all times here.
            max_tokens: what it may generate at most; 0: nothing.
            choices: texts that were asked for with it, itself included; 0: told by another one.
        """
        return RequestMeter(self, num_prompt, now_s, max_tokens, choices)


class RequestMeter:
    """One request on its way: when it was where."""

    __slots__ = (
        *("_admitted_s", "_choices", "_first_s", "_last_s", "_max_tokens", "_model"),
        *("_num_prompt", "_submitted_s", "_tokens"),
    )

    def __init__(
        self, model: ModelMetrics, num_prompt: int, now_s: float, max_tokens: int, choices: int
    ) -> None:
        self._model = model
        self._max_tokens = max_tokens
        self._choices = choices
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
            series.params_max_tokens.observe(self._max_tokens)
            if self._choices:
                series.params_n.observe(self._choices)
            if self._admitted_s is not None:
                series.inference.observe(now_s - self._admitted_s)
            if self._tokens:
                series.decode.observe(self._last_s - self._first_s)


def _tree(kind: type[Error]) -> Iterator[type[Error]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
