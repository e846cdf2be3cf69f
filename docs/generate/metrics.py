"""The table of metrics: what `GET /metrics` shows, read as Prometheus reads it."""

from collections.abc import Iterable
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from app.engine_gauges import PREFIX, STEP_TOKENS, EngineState
from app.metrics import Metrics
from docs.generate.tables import code, table

MODEL: Final = "publisher/name"
BOUND: Final = "le"
"""The label of a histogram's buckets."""


def markdown() -> str:
    """Write the server's own series, and those of the process around it."""
    families = list(text_string_to_metric_families(exposed()))
    own = [family for family in families if family.name.startswith(PREFIX)]
    process = [family for family in families if not family.name.startswith(PREFIX)]
    return f"## The server\n\n{_table(own)}\n## The process\n\n{_table(process)}"


def exposed() -> str:
    """What a server shows that has one model loaded."""
    metrics = Metrics()
    idle = EngineState(
        slots=1,
        running=0,
        waiting=0,
        kv_usage=0.0,
        steps=0,
        step_tokens=(0,) * (len(STEP_TOKENS) + 1),
        block_tokens=1,
    )
    metrics.model(MODEL).attach(lambda: idle)
    return metrics.expose("")[0].decode()


def _table(families: Iterable[Metric]) -> str:
    rows = [
        (code(name(family)), family.type, labels(family), meaning(family))
        # the time since when a counter counts has no text of its own
        for family in families
        if not family.name.endswith("_created")
    ]
    return table(("name", "kind", "labels", "meaning"), rows)


def name(family: Metric) -> str:
    """As a query writes it: a counter with its suffix, a histogram without one."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def labels(family: Metric) -> str:
    """The labels of a series, but for the bounds of buckets."""
    names = {label: None for sample in family.samples for label in sample.labels if label != BOUND}
    return ", ".join(map(code, names))


def meaning(family: Metric) -> str:
    """What it says, and the bounds of a histogram's buckets."""
    bounds = {sample.labels[BOUND]: None for sample in family.samples if BOUND in sample.labels}
    bounds.pop("+Inf", None)
    numbers = ", ".join(f"{float(bound):g}" for bound in bounds)
    return f"{family.documentation} Buckets: {numbers}." if numbers else family.documentation
