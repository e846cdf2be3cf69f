"""Spans of requests to the real application with a tiny model, kept in memory."""

import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode

from app import asgi
from app.runtime.ort_decoder import OrtDecoder
from app.settings import InvalidSetting
from app.tracing import Tracing, create_tracing
from tests.accounts_app import Server
from tests.fakes import BYTES, CHATML
from tests.hosts import CHEAP
from tests.test_imports import IMPORTS
from tests.tiny_model import write_tiny_model

MODEL = "tiny/a"
SECRET = "a text that no span may hold"
ASK = {"prompt": SECRET, "max_length": 5, "temperature": 0}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHILDREN = ["queue", "prefill", "decode"]


@asynccontextmanager
async def traced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: object
) -> AsyncIterator[tuple[Server, InMemorySpanExporter]]:
    template = {"tokenizer": BYTES, "chat_template": CHATML}
    write_tiny_model(folder, MODEL, vocab_size=BYTES.get_vocab_size(), **template)
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(asgi, "create_tracing", lambda: Tracing(provider))
    values = {"data_dir": folder, "models_dir": folder, "model": MODEL, "slots": 2, **settings}
    app = asgi.create_app(msgspec.structs.replace(CHEAP, **values))
    async with app.lifespan():
        yield Server(app, auth=None, database=None, service=None), exporter


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    return lambda **settings: traced(tmp_path, monkeypatch, **settings)


def told(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The one request's span, and its children in order."""
    spans = exporter.get_finished_spans()
    [request] = [span for span in spans if span.kind is SpanKind.SERVER]
    children = [span for span in spans if span is not request]
    assert all(span.parent.span_id == request.context.span_id for span in children)
    return request, children


async def test_a_request_is_a_span_with_queue_prefill_and_decode(serving):
    async with serving() as (server, exporter):
        answer = (await server.ask("POST", "/generate", {**ASK, "model_id": MODEL})).json
    request, children = told(exporter)
    assert request.name == f"chat {MODEL}"
    assert request.parent is None
    assert request.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llmhost",
        "gen_ai.output.type": "text",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": MODEL,
        "gen_ai.request.max_tokens": 5,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 80,
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": answer["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 0,
    }
    assert request.status.status_code is StatusCode.UNSET
    assert [span.name for span in children] == CHILDREN
    times = [request.start_time]
    for span in children:
        times += [span.start_time, span.end_time]
    times.append(request.end_time)
    # the request's own times are read from another clock, a moment apart
    slack_ns = 5_000_000
    assert all(a <= b + slack_ns for a, b in pairwise(times)), times
    assert children[2].attributes == {"llmhost.generated_tokens": 5}


async def test_every_name_of_ours_is_one_of_the_conventions(serving):
    async with serving() as (server, exporter):
        body = {"model": MODEL, "messages": [{"role": "user", "content": SECRET}], "n": 2}
        body |= {"max_tokens": 3, "seed": 1, "top_p": 0.5, "presence_penalty": 1, "stop": SECRET}
        assert (await server.ask("POST", "/v1/chat/completions", body)).status == 200
    request, _ = told(exporter)
    names = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    ours = {name for name in request.attributes if name.startswith("gen_ai.")}
    assert len(ours) > 10
    assert ours <= names


async def test_the_choices_of_a_request_share_its_span(serving):
    async with serving() as (server, exporter):
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "n": 2}
        await server.ask("POST", "/v1/chat/completions", {**body, "max_tokens": 3, "seed": 1})
    request, children = told(exporter)
    assert request.name == f"chat {MODEL}"
    assert request.attributes["gen_ai.request.choice.count"] == 2
    assert len(request.attributes["gen_ai.response.finish_reasons"]) == 2
    drawn = {(span.name, span.attributes["llmhost.choice"]) for span in children}
    assert drawn == {(name, choice) for name in CHILDREN for choice in (0, 1)}


async def test_the_clients_trace_is_the_parent(serving):
    async with serving() as (server, exporter):
        headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
        await server.ask("POST", "/generate", ASK, headers=headers)
    request, children = told(exporter)
    assert f"{request.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{request.parent.span_id:016x}" == PARENT.split("-")[2]
    assert request.context.trace_state.get("vendor") == "1"
    assert {span.context.trace_id for span in children} == {request.context.trace_id}


@pytest.mark.parametrize("bad", ["", "00-0-0-01", "x" * 10_000, PARENT.replace("00-", "ff-", 1)])
async def test_a_header_that_is_no_trace_begins_a_new_one(serving, bad):
    async with serving() as (server, exporter):
        answer = await server.ask("POST", "/generate", ASK, headers={"traceparent": bad})
        assert answer.status == 200
    assert told(exporter)[0].parent is None


async def test_no_span_holds_what_was_asked_or_answered(serving):
    async with serving() as (server, exporter):
        body = {"model": MODEL, "messages": [{"role": "user", "content": SECRET}], "stop": SECRET}
        await server.ask("POST", "/v1/chat/completions", {**body, "max_tokens": 3})
        await server.ask("POST", "/v1/chat/completions", {**body, "stop_token_ids": [9999]})
    spans = exporter.get_finished_spans()
    assert len(spans) == 5
    assert not [span for span in spans if SECRET in span.to_json()]


async def test_a_model_that_is_not_there_is_named_in_an_attribute_and_in_no_name(serving):
    async with serving() as (server, exporter):
        await server.ask("POST", "/generate", {**ASK, "model_id": "made/up" + "p" * 1000})
    request, _ = told(exporter)
    assert request.name == "chat"
    assert request.attributes["gen_ai.request.model"].startswith("made/upp")
    assert len(request.attributes["gen_ai.request.model"]) == 200
    assert request.attributes["error.type"] == "unknown_model"


async def test_what_a_client_did_wrong_is_a_code_and_no_error_of_the_server(serving):
    async with serving() as (server, exporter):
        assert (await server.ask("POST", "/generate", {"prompt": "x" * 1000})).status == 413
    request, children = told(exporter)
    assert request.attributes["error.type"] == "context_overflow"
    assert request.status.status_code is StatusCode.UNSET
    assert not children


async def test_a_decoder_that_breaks_is_an_error(serving, monkeypatch):
    def bug(*_: object) -> None:
        raise ZeroDivisionError("not a decoder failure")

    async with serving() as (server, exporter):
        monkeypatch.setattr(OrtDecoder, "run", bug)
        assert (await server.ask("POST", "/generate", ASK)).status == 500
    request, _ = told(exporter)
    assert request.attributes["error.type"] == "engine_failure"
    assert request.attributes["gen_ai.response.finish_reasons"] == ("error",)
    assert request.status.status_code is StatusCode.ERROR


def test_nothing_is_traced_unless_the_environment_asks():
    for environ in (
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ):
        assert create_tracing(environ) is None, environ


async def test_an_endpoint_is_enough():
    for variable in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        tracing = create_tracing({variable: "http://127.0.0.1:9"})
        assert tracing is not None
        await tracing.close()


def test_an_exporter_that_is_not_here_stops_the_start():
    with pytest.raises(InvalidSetting, match="OTEL_TRACES_EXPORTER='zipkin': expected otlp"):
        create_tracing({"OTEL_TRACES_EXPORTER": "zipkin"})


def test_without_the_extra_the_log_says_what_to_install(monkeypatch, caplog):
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    with caplog.at_level(logging.WARNING):
        assert create_tracing({"OTEL_TRACES_EXPORTER": "otlp"}) is None
    assert "pip install 'llmhost[otel]'" in caplog.text


def test_a_server_without_traces_imports_nothing_of_them():
    wanted = {imported for _, imported in IMPORTS if imported.startswith("opentelemetry")}
    assert wanted, "else this proves nothing"
    code = "import sys, app.asgi; print([n for n in sys.modules if n.startswith('opentelemetry')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
