"""Gauges of the engines that are in memory, read at each scrape.

Knows no engine: one attaches a function that tells its state.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

import msgspec
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

PREFIX: Final = "llmhost_"
STEP_TOKENS: Final = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384)
"""Upper bounds of the buckets in which steps are counted, vLLM's."""
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
    step_tokens: tuple[int, ...] = ()
    """Steps by the tokens that they fed, a number for each of `STEP_TOKENS` and one for more; ()
    where nobody counts them."""
    fed_tokens: int = 0
    """What all those steps fed."""
    block_tokens: int = 0
    """Tokens of a block of the prefix cache; 0: there is no cache."""
    slot_blocks: int = 0
    """Such blocks in all slots."""
    kept_blocks: int = 0
    """Blocks of prompts that are kept beside the slots."""


ReadState = Callable[[], EngineState]


class _Counted(msgspec.Struct, frozen=True):
    """What a model's engines have counted, one after the other."""

    steps: int = 0
    step_tokens: tuple[int, ...] = ()
    fed_tokens: int = 0

    def and_of(self, state: EngineState) -> "_Counted":
        """Add what one more of them has counted."""
        mine = self.step_tokens or (0,) * len(state.step_tokens)
        return _Counted(
            self.steps + state.steps,
            tuple(a + b for a, b in zip(mine, state.step_tokens, strict=True)),
            self.fed_tokens + state.fed_tokens,
        )


class EngineGauges(Collector):
    """Gauges of engines that are in memory, read when they are asked for."""

    def __init__(self) -> None:
        self._attached: dict[str, ReadState] = {}
        self._ended: dict[str, _Counted] = {}
        """What engines that have gone had counted, by model."""

    def attach(self, model_id: str, read: ReadState) -> Callable[[], None]:
        """Show an engine's state from now on.

        Returns:
            Call it once when the engine has stopped: its gauges go, its steps stay counted.
        """
        # Prometheus refuses a whole scrape for one series that is there twice.
        assert model_id not in self._attached, f"{model_id} is in memory twice"
        self._attached[model_id] = read
        self._ended.setdefault(model_id, _Counted())

        def detach() -> None:
            del self._attached[model_id]
            self._ended[model_id] = self._ended[model_id].and_of(read())

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
        yield _cache_config(states)
        counted = dict(self._ended)
        for model_id, state in states:
            counted[model_id] = counted[model_id].and_of(state)
        yield from _counters(counted)


def _gauge(stem: str, text: str, values: Iterable[tuple[str, float]]) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(PREFIX + stem, text, labels=[MODEL])
    for model_id, value in values:
        gauge.add_metric([model_id], value)
    return gauge


def _cache_config(states: Iterable[tuple[str, EngineState]]) -> GaugeMetricFamily:
    """Tell how each cache is cut, in vLLM's words; blocks of slots are wherever the model runs."""
    names = [MODEL, "block_size", "num_gpu_blocks", "enable_prefix_caching", "num_kept_blocks"]
    text = "The KV cache: tokens of a block, blocks in slots, blocks of prompts kept beside them."
    info = GaugeMetricFamily(f"{PREFIX}cache_config_info", text, labels=names)
    for model_id, state in states:
        if state.block_tokens:
            numbers = state.block_tokens, state.slot_blocks, bool(state.kept_blocks)
            info.add_metric([model_id, *map(str, numbers), str(state.kept_blocks)], 1)
    return info


def _counters(counted: Mapping[str, _Counted]) -> Iterator[Metric]:
    """What engines have counted, those that have gone included."""
    steps = CounterMetricFamily(f"{PREFIX}engine_steps", "Engine steps.", labels=[MODEL])
    lost = CounterMetricFamily(
        f"{PREFIX}num_preemptions",
        "Requests that lost their slot before their end: none does, they keep it.",
        labels=[MODEL],
    )
    fed = HistogramMetricFamily(
        f"{PREFIX}iteration_tokens_total",
        "Tokens that a step fed to the model, of prompts and of texts.",
        labels=[MODEL],
    )
    bounds = [*map(str, map(float, STEP_TOKENS)), "+Inf"]
    for model_id, one in counted.items():
        steps.add_metric([model_id], one.steps)
        lost.add_metric([model_id], 0)
        if one.step_tokens:
            buckets = list(zip(bounds, accumulate(one.step_tokens), strict=True))
            fed.add_metric([model_id], buckets, one.fed_tokens)
    yield from (steps, lost, fed)
