"""What the operator's page shows beside the metrics, and pulls. The page itself is in `pages`."""

from importlib.metadata import version
from typing import Final

from litestar import get, post
from litestar.types import HTTPResponseStartEvent, Scope

from app.auth.guards import from_no_other_site
from app.auth.logins import Principal
from app.auth.operators import is_administrator, operator
from app.dialects.admin import accounts
from app.dialects.admin.pulls import Pulls
from app.dialects.admin.schemas import Done, ModelRow, Overview, PullBody
from app.dialects.kit.body import read_object, to_record
from app.dialects.kit.dialect import Dialect
from app.dialects.kit.host import AnyRequest, Host
from app.dialects.kit.refusals import ACCOUNT_STATUSES, detail, refuse_with_detail
from app.dialects.kit.router import OwnRouter

MAX_BODY_BYTES: Final = 65_536


def dialect(host: Host) -> Dialect:
    """Make what the page asks for. It loads and unloads models as LocalLab's clients do."""
    guards, pulls = [from_no_other_site, operator], Pulls(host.library)

    @get("/admin/api/overview", guards=guards, include_in_schema=False)
    async def overview(request: AnyRequest) -> Overview:
        """Show models, a pull and the last errors."""
        principal: Principal | None = request.scope["user"]
        loaded = {model.model_id: model for model in host.models.loaded}
        loading = host.models.loading
        rows = [
            ModelRow.of(facts, loaded.get(facts.base_id), loading.get(facts.base_id))
            for facts in await host.models.available()
        ]
        return Overview(
            version=version("llmhost"),
            open=not host.settings.require_auth,
            username=None if principal is None else principal.username,
            administrator=is_administrator(principal),
            models=rows,
            pull=pulls.last,
            cannot_pull=pulls.cannot,
            errors=[] if host.errors is None else host.errors.newest_first(),
        )

    @post("/admin/api/pull", guards=guards, include_in_schema=False, status_code=202)
    async def pull(request: AnyRequest) -> Done:
        """Begin to fetch a model and export it."""
        body = to_record(await read_object(request), PullBody)
        await pulls.start(body.name)
        return Done(f"{body.name} is being fetched")

    @post("/admin/api/pull/cancel", guards=guards, include_in_schema=False, status_code=200)
    async def cancel_pull() -> Done:
        """End the pull that is under way."""
        await pulls.cancel()
        return Done("No model is being fetched")

    return Dialect(
        paths=("/admin",),
        router=OwnRouter(
            path="/",
            route_handlers=[overview, pull, cancel_pull, *accounts.HANDLERS],
            request_max_body_size=min(MAX_BODY_BYTES, host.settings.max_body_bytes),
        ),
        refuse=refuse_with_detail(ACCOUNT_STATUSES),
        envelope=detail,
        headers=uncached,
        close=pulls.cancel,
    )


def uncached(scope: Scope, _: HTTPResponseStartEvent) -> list[tuple[bytes, bytes]]:
    """Forbid caches to keep what only operators may see; `Dialect.headers`."""
    return [(b"cache-control", b"no-store")] if scope["path"] != "/admin" else []
