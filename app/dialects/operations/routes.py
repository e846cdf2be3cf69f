"""`GET /metrics`, `/health/live` and `/health/ready`."""

from typing import Final, Literal

import msgspec
from litestar import MediaType, Response, get
from litestar.openapi.datastructures import ResponseSpec

from app.auth.guards import admin_if_required
from app.contract.models import ModelRegistry
from app.dialects.kit.dialect import Dialect
from app.dialects.kit.host import AnyRequest, Host
from app.dialects.kit.host_header import ANY_HOST
from app.dialects.kit.refusals import STATUSES, Detail, detail, documented, refuse_with_detail
from app.dialects.kit.router import OwnRouter

PATHS: Final = ("/metrics", "/health/live", "/health/ready")
Reason = Literal["shutting_down", "loading", "no_model_loaded", "engine_failed", "stalled"]


class LiveAnswer(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ReadyAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether requests should be sent here."""

    status: Literal["ready", "not_ready"]
    reason: Reason | None = None
    """Why not."""


refuse: Final = refuse_with_detail(STATUSES)
refusals: Final = documented(
    Detail,
    {
        401: "The server asks for an administrator's token",
        403: "The user is no administrator",
    },
)


def dialect(host: Host) -> Dialect:
    """Make the operators' endpoints. The two of health are open to everybody: they tell no name."""

    @get(
        "/metrics",
        summary="Show metrics",
        media_type=MediaType.TEXT,
        guards=[admin_if_required],
        responses=refusals(401, 403),
    )
    async def show_metrics(request: AnyRequest) -> Response[bytes]:
        """Show all metrics in Prometheus' text format, or as OpenMetrics where `Accept` asks."""
        content, content_type = host.metrics.expose(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": content_type})

    @get("/health/live", summary="Tell that the process lives", opt=ANY_HOST)
    async def live() -> LiveAnswer:
        """Answer while the process can; says nothing of models. For supervisors."""
        return LiveAnswer()

    @get(
        "/health/ready",
        summary="Tell whether requests may come",
        opt=ANY_HOST,
        responses={503: ResponseSpec(ReadyAnswer, description="Not now; the reason says why")},
    )
    async def ready() -> Response[ReadyAnswer]:
        """Tell whether a model is loaded and every loaded one is running. For load balancers."""
        reason = why_not_ready(host.models, host.settings.stalled_after_s)
        if reason is None:
            return Response(ReadyAnswer("ready"))
        return Response(ReadyAnswer("not_ready", reason), status_code=503)

    return Dialect(
        paths=PATHS,
        router=OwnRouter(path="/", route_handlers=[show_metrics, live, ready], tags=["Operations"]),
        refuse=refuse,
        envelope=detail,
    )


def why_not_ready(models: ModelRegistry, stalled_after_s: float) -> Reason | None:
    """Say why no request should come here; None: requests may. Waits for nothing.

    One stuck model is reason enough: it won't mend itself, and its requests would hang.

    Args:
        models: every loaded one must be running.
        stalled_after_s: a step that takes longer counts as one that won't end.
    """
    if models.closing:
        return "shutting_down"
    loaded = models.loaded
    if not loaded:
        return "loading" if models.loading else "no_model_loaded"
    if any(model.failure is not None for model in loaded):
        return "engine_failed"
    if any(model.step_age_s > stalled_after_s for model in loaded):
        return "stalled"
    return None
