"""What operators' tools ask: metrics, and whether the process lives and can take requests.

Knows no dialect: whose words a refusal has is for app/asgi.py to say.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import msgspec
from litestar import MediaType, Request, Response, Router, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import Guard, Scope

from app.catalog.catalog import Catalog
from app.errors import Error
from app.metrics import Metrics

AnyRequest = Request[Any, Any, Any]
Refuse = Callable[[Error], Response[Any]]

Reason = Literal["shutting_down", "loading", "no_model_loaded", "engine_failed", "stalled"]


class LiveAnswer(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ReadyAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether requests should be sent here."""

    status: Literal["ready", "not_ready"]
    reason: Reason | None = None
    """Why not."""


def router(
    catalog: Catalog,
    metrics: Metrics,
    *,
    stalled_after_s: float,
    refuse: Refuse,
    refusal: type[msgspec.Struct],
    scraping: Sequence[Guard] = (),
) -> Router:
    """Make the operators' endpoints. The two of health are open to everybody: they tell no name.

    Args:
        catalog: whose engines have to be going.
        metrics: what is shown.
        stalled_after_s: a step that takes longer is one that won't end.
        refuse: the answer to an error.
        refusal: its body, for the OpenAPI document.
        scraping: stand before the metrics.
    """

    @get(
        "/metrics",
        summary="Show metrics",
        media_type=MediaType.TEXT,
        guards=list(scraping),
        responses={
            401: ResponseSpec(refusal, description="The server asks for an administrator's token"),
            403: ResponseSpec(refusal, description="The user is no administrator"),
        },
    )
    async def show_metrics(request: AnyRequest) -> Response[bytes]:
        """Show all metrics in Prometheus' text format, or as OpenMetrics where `Accept` asks."""
        content, content_type = metrics.expose(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": content_type})

    @get("/health/live", summary="Tell that the process lives")
    async def live() -> LiveAnswer:
        """Answer while the process can; says nothing of models. For what restarts processes."""
        return LiveAnswer()

    @get(
        "/health/ready",
        summary="Tell whether requests may come",
        responses={503: ResponseSpec(ReadyAnswer, description="Not now; the reason says why")},
    )
    async def ready() -> Response[ReadyAnswer]:
        """Tell whether a model is loaded and every engine goes on. For what shares out requests."""
        reason = why_not_ready(catalog, stalled_after_s)
        if reason is None:
            return Response(ReadyAnswer("ready"))
        return Response(ReadyAnswer("not_ready", reason), status_code=503)

    return Router(
        path="/",
        route_handlers=[show_metrics, live, ready],
        exception_handlers={Error: lambda _, error: refuse(error)},
        tags=["Operations"],
    )


def why_not_ready(catalog: Catalog, stalled_after_s: float) -> Reason | None:
    """Why no request should come here; None: it may. Waits for nothing.

    One engine that is stuck is enough: it won't mend itself, and its model's requests would hang.
    """
    if catalog.closing:
        return "shutting_down"
    engines = [model.engine for model in catalog.loaded]
    if not engines:
        return "loading" if catalog.loading else "no_model_loaded"
    if any(engine.failure is not None for engine in engines):
        return "engine_failed"
    if any(engine.step_age_s > stalled_after_s for engine in engines):
        return "stalled"
    return None


def counts_errors(metrics: Metrics) -> Callable[[Exception, Scope], Awaitable[None]]:
    """Make the application's hook that counts the errors that handlers answer."""

    async def count(error: Exception, _: Scope) -> None:
        if isinstance(error, Error):
            metrics.count_error(error)

    return count


def counting(refuse: Refuse, metrics: Metrics) -> Refuse:
    """Make a `refuse` that counts, for routes that answer errors without raising them."""

    def count_and_refuse(error: Error) -> Response[Any]:
        metrics.count_error(error)
        return refuse(error)

    return count_and_refuse
