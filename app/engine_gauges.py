"""Gauges of the engines that are in memory, read at each scrape.

Knows no engine: one attaches a function that tells its state.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX: Final = "llmhost_"
MODEL: Final = "model_name"


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


class EngineGauges(Collector):
    """Gauges of engines that are in memory, read when they are asked for."""

    def __init__(self) -> None:
        self._attached: dict[str, ReadState] = {}
        self._ended_steps: dict[str, int] = {}
        """Steps of engines that have gone, by model."""

    def attach(self, model_id: str, read: ReadState) -> Callable[[], None]:
        """Show an engine's state from now on.

        Returns:
            Call it once when the engine has stopped: its gauges go, its steps stay counted.
        """
        # Prometheus refuses a whole scrape for one series that is there twice.
        assert model_id not in self._attached, f"{model_id} is in memory twice"
        self._attached[model_id] = read
        self._ended_steps.setdefault(model_id, 0)

        def detach() -> None:
            del self._attached[model_id]
            self._ended_steps[model_id] += read().steps

        return detach

    def collect(self) -> Iterator[Metric]:
        """Read every engine; Prometheus' client calls this."""
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
