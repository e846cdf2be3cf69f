"""`GET /version`, `/load` and `/ping`: what routers and benchmarks of vLLM ask a server."""

from typing import Annotated

import msgspec
from litestar import MediaType, route
from litestar import get as get_
from msgspec import Meta

from app.contract.models import ModelRegistry
from app.dialects.kit.host import Provided
from app.dialects.openai.extras import VERSION
from app.dialects.openai.wire import refusals


class Version(msgspec.Struct, frozen=True):
    """This software's."""

    version: str


class Load(msgspec.Struct, frozen=True):
    """How much there is to do."""

    server_load: Annotated[int, Meta(description="Requests that run or wait, on all models.")]


@get_("/version", summary="Version", responses=refusals(401))
async def show_version() -> Version:
    """Say which version of this software answers."""
    return Version(VERSION)


@get_("/load", summary="Load", responses=refusals(401))
async def show_load(models: Provided[ModelRegistry]) -> Load:
    """Count the requests that run or wait."""
    return Load(sum(model.running + model.waiting for model in models.loaded))


@route(
    "/ping",
    http_method=["GET", "POST"],
    status_code=200,
    media_type=MediaType.TEXT,
    summary="Ping",
)
async def ping() -> str:
    """Answer, with nothing: the process is there. `/health/ready` says whether it can serve."""
    return ""
