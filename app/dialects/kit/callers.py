"""Who asks, and what a request of several generations counts as."""

from typing import cast

from app.auth.guards import IN_BATCH, Access
from app.auth.logins import Principal
from app.contract.generation import BEHIND, Caller
from app.dialects.kit.host import AnyRequest
from app.storage.models import Role


def may_manage(request: AnyRequest) -> bool:
    """Whether who asks may load and unload models: administrators, or anybody on an open server."""
    access = cast("Access", request.app.state["access"])
    principal: Principal | None = request.scope.get("user")
    return not access.require_auth or (principal is not None and principal.role is Role.ADMIN)


async def caller_of(request: AnyRequest, generations: int = 1) -> Caller:
    """Say who asks, and count the request's generations against the rate limit.

    The guard has counted the first one, before the body was read.

    Args:
        request: behind `within_rate_limit` or `within_chosen_rate_limit`, if its generations are to
            be counted.
        generations: how many the request wants.

    Raises:
        RateLimited: there are too many.
    """
    access = cast("Access", request.app.state["access"])
    principal: Principal | None = request.scope.get("user")
    counted: str | None = request.scope["state"].get("rate_limited_client")
    if counted is not None and generations > 1:
        await access.rate_limit.count_more(counted, generations - 1)
    client = f"user {principal.user_id}" if principal else f"address {access.address(request)}"
    return Caller(
        client=f"{BEHIND}{client}" if IN_BATCH in request.scope["state"] else client,
        tenant=str(principal.user_id) if principal else "",
        trace=(request.headers.get("traceparent", ""), request.headers.get("tracestate", "")),
    )
