"""Series, their values and what they cost; engines and requests are driven by hand."""

import gc
import sys
from collections.abc import Callable
from types import FrameType

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from app.engine_gauges import EngineState
from app.errors import Overloaded, RateLimited
from app.metric_series import BETWEEN_TOKENS_S
from app.metrics import Metrics

MODEL = "a/b"
# what vLLM's own example dashboard asks for, less its prefix
DASHBOARD_STEMS = {
    *("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"),
    *("prompt_tokens_total", "generation_tokens_total", "request_success_total"),
    *("prefix_cache_queries_total", "prefix_cache_hits_total"),
    *("time_to_first_token_seconds_bucket", "inter_token_latency_seconds_bucket"),
    *("e2e_request_latency_seconds_bucket", "request_queue_time_seconds_sum"),
    *("request_prefill_time_seconds_sum", "request_decode_time_seconds_sum"),
    *("request_prompt_tokens_bucket", "request_generation_tokens_bucket"),
    *("iteration_tokens_total_bucket", "num_preemptions_total", "cache_config_info"),
    *("request_inference_time_seconds_sum", "request_params_max_tokens_bucket"),
    "request_params_n_bucket",
}
MOST_LINES = 150
"""Lines of Python that a token may run, the library's too. Measured: 73, which take 2 µs; most of
them go through the 21 buckets."""


def parsed(text: str) -> dict[tuple[str, str], float]:
    """(name without our prefix, labels without the model) → value."""
    found = {}
    for family in read_text(text):
        for sample in family.samples:
            labels = [f"{k}={v}" for k, v in sample.labels.items() if k != "model_name"]
            found[sample.name.removeprefix("llmhost_"), ",".join(labels)] = sample.value
    return found


def samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    return parsed(metrics.expose("")[0].decode())


def state(steps: int = 0, **values: object) -> EngineState:
    return EngineState(
        **{"slots": 4, "running": 0, "waiting": 0, "kv_usage": 0.0, **values}, steps=steps
    )


def num_lines_run(work: Callable[[], object]) -> int:
    lines = 0

    def trace(_frame: FrameType, event: str, _arg: object) -> Callable:
        nonlocal lines
        if event == "line":
            lines += 1
        return trace

    before = sys.gettrace()
    gc.disable()  # what it finalizes would count
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return lines


def test_a_request_is_timed_from_submission_through_slot_and_tokens_to_its_end():
    metrics = Metrics()
    meter = metrics.model(MODEL).submitted(num_prompt=7, now_s=100.0, max_tokens=9, choices=2)
    meter.admitted(101.0)
    meter.admitted(150.0)  # a second report says nothing new
    meter.token(103.0, 5)
    meter.token(103.5, 0)
    meter.token(104.5, 0)
    meter.ended("stop", 105.0)
    found = samples(metrics)
    sums = {
        "request_queue_time_seconds": (1, 1.0),
        "time_to_first_token_seconds": (1, 3.0),
        "request_prefill_time_seconds": (1, 2.0),
        "inter_token_latency_seconds": (2, 1.5),
        "request_decode_time_seconds": (1, 1.5),
        "request_inference_time_seconds": (1, 4.0),
        "e2e_request_latency_seconds": (1, 5.0),
        "request_params_max_tokens": (1, 9),
        "request_params_n": (1, 2),
        "request_prompt_tokens": (1, 7),
        "request_generation_tokens": (1, 3),
    }
    for name, (count, total) in sums.items():
        assert (found[f"{name}_count", ""], found[f"{name}_sum", ""]) == (count, total), name
    counts = {"prompt_tokens": 7, "generation_tokens": 3}
    counts |= {"prefix_cache_queries": 7, "prefix_cache_hits": 5}
    assert {name: found[f"{name}_total", ""] for name in counts} == counts


@pytest.mark.parametrize(
    ("reason", "shown", "timed"),
    [
        ("stop", "stop", 1),
        ("length", "length", 1),
        ("cancelled", "abort", 0),
        ("error", "error", 0),
    ],
)
def test_an_end_counts_under_its_reason_and_impatience_is_no_latency(reason, shown, timed):
    metrics = Metrics()
    metrics.model(MODEL).submitted(3, 0.0).ended(reason, 60.0)
    found = samples(metrics)
    for other in ("stop", "length", "abort", "error"):
        count = found["request_success_total", f"finished_reason={other}"]
        assert count == (other == shown), other
    assert found["e2e_request_latency_seconds_count", ""] == timed
    assert found["prompt_tokens_total", ""] == 0, "no token: nobody fed the whole prompt"


def test_a_stopped_engine_takes_its_gauges_and_leaves_its_counters():
    metrics = Metrics()
    model = metrics.model(MODEL)
    counts = (1, 0, 3, *[0] * 10, 1)
    cache = {"block_tokens": 16, "slot_blocks": 512, "kept_blocks": 9}
    detach = model.attach(
        lambda: state(
            5, running=2, waiting=3, kv_usage=0.25, step_tokens=counts, fed_tokens=20_040, **cache
        )
    )
    model.submitted(3, 0.0).ended("stop", 1.0)
    found = samples(metrics)
    gauges = {"slots": 4, "num_requests_running": 2, "num_requests_waiting": 3}
    gauges |= {"kv_cache_usage_perc": 0.25}
    assert {name: found[name, ""] for name in gauges} == gauges
    assert (found["models_loaded", ""], found["engine_steps_total", ""]) == (1, 5)
    described = "block_size=16,enable_prefix_caching=True,num_gpu_blocks=512,num_kept_blocks=9"
    assert found["cache_config_info", described] == 1
    detach()
    found = samples(metrics)
    assert not gauges.keys() & {name for name, _ in found}
    assert (found["models_loaded", ""], found["engine_steps_total", ""]) == (0, 5)
    assert found["request_success_total", "finished_reason=stop"] == 1
    metrics.model(MODEL).attach(lambda: state(2, step_tokens=(2, *[0] * 13), fed_tokens=2))
    found = samples(metrics)
    assert found["engine_steps_total", ""] == 7, "a counter never goes back"
    steps = {"1.0": 3, "8.0": 3, "16.0": 6, "16384.0": 6, "+Inf": 7}
    for bound, count in steps.items():
        assert found["iteration_tokens_total_bucket", f"le={bound}"] == count, bound
    assert found["iteration_tokens_total_sum", ""] == 20_042
    assert found["iteration_tokens_total_count", ""] == 7


def test_every_error_code_is_there_from_the_start_and_counts():
    metrics = Metrics()
    before = {
        labels: v
        for (name, labels), v in samples(metrics).items()
        if name == "request_errors_total"
    }
    assert {"code=overloaded", "code=rate_limited", "code=context_overflow"} <= before.keys()
    assert set(before.values()) == {0}
    metrics.count_error(Overloaded(1, 1))
    metrics.count_error(RateLimited("too often", 1))
    metrics.count_error(Overloaded(1, 1))
    found = samples(metrics)
    assert found["request_errors_total", "code=overloaded"] == 2
    assert found["request_errors_total", "code=rate_limited"] == 1
    assert {key for key in found if key[0] == "request_errors_total"} == {
        ("request_errors_total", labels) for labels in before
    }, "errors bring no new series"


def test_the_names_that_dashboards_ask_for_are_there():
    metrics = Metrics()
    metrics.model(MODEL).attach(lambda: state(step_tokens=(0,) * 14, block_tokens=16))
    text = metrics.expose("")[0].decode()
    for stem in DASHBOARD_STEMS:
        assert f"\nllmhost_{stem}{{" in text, stem
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "python_info"):
        assert f"\n{name}" in text, name
    assert ":" not in "".join(name for name, _ in samples(metrics))


def test_accept_chooses_the_format():
    metrics = Metrics()
    metrics.model(MODEL).attach(lambda: state(step_tokens=(0,) * 14, block_tokens=16))
    text, content_type = metrics.expose("application/openmetrics-text;version=1.0.0,*/*;q=0.1")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert "llmhost_slots" in {family.name for family in read_openmetrics(text.decode())}
    assert metrics.expose("*/*")[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_two_applications_share_no_series():
    first, second = Metrics(), Metrics()
    first.model(MODEL).submitted(3, 0.0).ended("stop", 1.0)
    assert "llmhost_request_success_total{" not in second.expose("")[0].decode()


def test_each_token_costs_the_same_few_lines():
    meter = Metrics().model(MODEL).submitted(3, 0.0)
    meter.token(0.0, 0)
    # the longest way: the last bucket
    ran = [
        num_lines_run(lambda i=i: meter.token(2 * BETWEEN_TOKENS_S[-1] * i, 0))
        for i in range(1, 1000)
    ]
    assert 0 < min(ran) == max(ran) <= MOST_LINES
