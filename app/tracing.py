"""Traces for OpenTelemetry: one span for each request, with queue, prefill and decode below it.

Off unless the standard `OTEL_*` variables name an exporter: until then nothing of OpenTelemetry is
imported. Names are those of its conventions for generative AI. No span holds what anybody wrote or
was answered. Knows no HTTP and no engine.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

import asyncio
import logging
import os
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from app.contract.usage import Usage
from app.errors import Error, ServerError
from app.metrics import RequestTimes
from app.settings import InvalidSetting

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

logger = logging.getLogger(__name__)

PROVIDER: Final = "llmhost"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTERS: Final = ("otlp", "console")
_MAX_HEADER: Final = 512
"""Characters of a header that are read: W3C asks for as many of `tracestate`."""

_MAX_MODEL_ID: Final = 200


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for, as far as a span tells it."""

    operation: Literal["chat", "text_completion"]
    model_id: str | None
    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    json: bool


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How one generation ended."""

    reason: str
    times: RequestTimes | None
    """None: it was never in the engine."""
    usage: Usage
    error: BaseException | None = None


def create_tracing(environ: Mapping[str, str] = os.environ) -> "Tracing | None":
    """Make what follows requests, where the environment asks for it; None: nothing does.

    Raises:
        InvalidSetting: `OTEL_TRACES_EXPORTER` names one that is not here.
    """
    asking = _asking(environ)
    if asking is None:
        return None
    name = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or "otlp"
    if name not in _EXPORTERS:
        raise InvalidSetting(f"OTEL_TRACES_EXPORTER={name!r}: expected otlp, console or none")
    try:
        return Tracing(_provider(name, environ))
    except ModuleNotFoundError as error:
        logger.warning(
            "traces_off variable=%s missing=%s: pip install 'llmhost[otel]'", asking, error.name
        )
        return None


def _asking(environ: Mapping[str, str]) -> str | None:
    """Name the variable that asks for traces; None: none does."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return None if exporter == "none" else "OTEL_TRACES_EXPORTER"
    return next((name for name in _ENDPOINTS if environ.get(name)), None)


def _provider(name: str, environ: Mapping[str, str]) -> "TracerProvider":
    # made on demand: a server without traces shall not pay for their library
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
        BatchSpanProcessor,
        ConsoleSpanExporter,
    )

    # the variables' own name goes before ours, in Resource.create what is passed before them
    named = "OTEL_SERVICE_NAME" in environ or "service.name" in environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    provider = TracerProvider(
        resource=Resource.create({} if named else {SERVICE_NAME: PROVIDER}),
        shutdown_on_exit=False,
    )
    exporter = ConsoleSpanExporter() if name == "console" else OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class Tracing:
    """Makes the spans of one server."""

    def __init__(self, provider: "TracerProvider") -> None:
        """Give spans to a provider, which is ours to close."""
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 # as above
            TraceContextTextMapPropagator,
        )

        self._provider = provider
        self._tracer = provider.get_tracer(PROVIDER, version("llmhost"))
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, asked: Asked, traceparent: str = "", tracestate: str = "") -> "RequestSpan":
        """Begin the span of a request; a client's own trace is its parent, where it sent one."""
        headers = {"traceparent": traceparent, "tracestate": tracestate}
        carrier = {k: v for k, v in headers.items() if v and len(v) <= _MAX_HEADER}
        return RequestSpan(self._tracer, self._propagator.extract(carrier), asked)

    async def close(self) -> None:
        """Send what has not been sent; waits for the exporter."""
        await asyncio.to_thread(self._provider.shutdown)


class RequestSpan:
    """The span of one request, open until its last generation has ended."""

    def __init__(self, tracer: Any, parent: Any, asked: Asked) -> None:
        """Begin it."""
        from opentelemetry import trace  # noqa: PLC0415 # as above

        self._trace = trace
        self._tracer = tracer
        self._asked = asked
        # The engine's clock is monotonic, spans have the time of day.
        self._zero_ns = time.time_ns() - round(time.monotonic() * 1e9)
        # the name gets the model when there is one: a client's word for it could be anything
        self._span: Span = tracer.start_span(
            asked.operation,
            context=parent,
            kind=trace.SpanKind.SERVER,
            attributes=_request_attributes(asked),
        )
        self._ended: dict[int, Ended] = {}
        self._count = 0

    def started(self, model_id: str, count: int) -> None:
        """Its generations were handed to a model's engine."""
        self._count = count
        self._span.update_name(f"{self._asked.operation} {model_id}")
        self._span.set_attribute("gen_ai.response.model", model_id)
        if self._asked.model_id is None:
            self._span.set_attribute("gen_ai.request.model", model_id)
        if count > 1:
            self._span.set_attribute("gen_ai.request.choice.count", count)

    def fail(self, error: BaseException, *, cancelled: bool = False) -> None:
        """Nothing was started; ends the span."""
        if cancelled:
            self._span.set_attribute("gen_ai.response.finish_reasons", ["cancelled"])
        else:
            self._note(error)
        self._span.end()

    def generation_ended(self, index: int, ended: Ended) -> None:
        """One of its generations is over; the last one ends the span."""
        self._ended[index] = ended
        if ended.times is not None:
            self._draw(index, ended, ended.times)
        if ended.error is not None:
            self._note(ended.error)
        if len(self._ended) == self._count:
            self._end([self._ended[one] for one in sorted(self._ended)])

    def _end(self, all_ended: Sequence[Ended]) -> None:
        usages = [one.usage for one in all_ended]
        self._span.set_attributes(
            {
                "gen_ai.response.finish_reasons": [one.reason for one in all_ended],
                "gen_ai.usage.input_tokens": sum(one.prompt_tokens for one in usages),
                "gen_ai.usage.output_tokens": sum(one.completion_tokens for one in usages),
                "gen_ai.usage.cache_read.input_tokens": sum(one.cached_tokens for one in usages),
            }
        )
        self._span.end()

    def _draw(self, index: int, ended: Ended, times: RequestTimes) -> None:
        """Make the spans of where a generation was; they are over when they are made."""
        choice = {"llmhost.choice": index} if self._count > 1 else {}
        now_s = time.monotonic()
        admitted_s, first_s = times.admitted_s, times.first_token_s
        self._child("queue", times.submitted_s, now_s if admitted_s is None else admitted_s, choice)
        if admitted_s is not None:
            read = {"llmhost.prompt_tokens": times.prompt_tokens}
            read |= {"llmhost.cached_tokens": ended.usage.cached_tokens}
            self._child(
                "prefill", admitted_s, now_s if first_s is None else first_s, {**choice, **read}
            )
        if first_s is not None and times.last_token_s is not None:
            written = {"llmhost.generated_tokens": times.generated_tokens}
            self._child("decode", first_s, times.last_token_s, {**choice, **written})

    def _child(self, name: str, start_s: float, end_s: float, attributes: dict[str, int]) -> None:
        child = self._tracer.start_span(
            name,
            context=self._trace.set_span_in_context(self._span),
            start_time=self._ns(start_s),
            attributes=attributes,
        )
        child.end(end_time=self._ns(end_s))

    def _ns(self, clock_s: float) -> int:
        return self._zero_ns + round(clock_s * 1e9)

    def _note(self, error: BaseException) -> None:
        """Say what went wrong by its code: a message may quote what a client sent."""
        code = error.code if isinstance(error, Error) else type(error).__name__
        self._span.set_attribute("error.type", code)
        # what a client did wrong is no error of the server's span
        if not isinstance(error, Error) or isinstance(error, ServerError):
            self._span.set_status(self._trace.StatusCode.ERROR)


def _request_attributes(asked: Asked) -> dict[str, str | int | float]:
    wanted: dict[str, str | int | float | None] = {
        "gen_ai.operation.name": asked.operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.output.type": "json" if asked.json else "text",
        "gen_ai.request.model": asked.model_id and asked.model_id[:_MAX_MODEL_ID],
        "gen_ai.request.max_tokens": asked.max_tokens,
        "gen_ai.request.temperature": asked.temperature,
        "gen_ai.request.top_p": asked.top_p,
        "gen_ai.request.top_k": asked.top_k or None,
        "gen_ai.request.presence_penalty": asked.presence_penalty or None,
        "gen_ai.request.frequency_penalty": asked.frequency_penalty or None,
        "gen_ai.request.seed": asked.seed,
    }
    return {name: value for name, value in wanted.items() if value is not None}
