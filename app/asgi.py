"""Put the packages together: the only file that knows them all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from litestar import Litestar

from app.auth.auth import create_auth
from app.catalog.catalog import Catalog
from app.dialects.accounts import routes as accounts
from app.dialects.kit.application import assemble
from app.dialects.kit.host import Host
from app.dialects.llm_host import routes as llm_host
from app.dialects.locallab import routes as locallab
from app.dialects.neptun import routes as neptun
from app.dialects.openai import routes as openai
from app.dialects.operations import routes as operations
from app.exposure import warn_if_exposed
from app.generation.service import GenerationService
from app.metrics import Metrics
from app.settings import Settings
from app.shutdown import on_stop_signal
from app.storage.database import Database, database_url

DIALECTS: Final = (operations, locallab, accounts, llm_host, neptun, openai)


def create_app(settings: Settings) -> Litestar:
    """Make the application; nothing is opened or loaded before its lifespan starts."""
    metrics = Metrics()
    catalog = Catalog(settings, metrics)
    database = Database(database_url(settings.database_url, settings.data_dir))
    auth = create_auth(settings, database)
    host = Host(
        models=catalog,
        generator=GenerationService(catalog),
        auth=auth,
        database=database,
        metrics=metrics,
        settings=settings,
    )
    dialects = [package.dialect(host) for package in DIALECTS]

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as cleanup:
            cleanup.push_async_callback(database.close)
            cleanup.push_async_callback(auth.close)
            for dialect in dialects:
                if dialect.close is not None:
                    cleanup.push_async_callback(dialect.close)
            cleanup.push_async_callback(catalog.close)
            await database.migrate()
            if settings.model:
                await catalog.load(settings.model)
            idle_watch = asyncio.create_task(catalog.unload_idle())
            cleanup.callback(idle_watch.cancel)
            if not settings.require_auth:
                exposure_watch = asyncio.create_task(warn_if_exposed())
                cleanup.callback(exposure_watch.cancel)
            on_stop_signal(catalog.close)
            yield

    return assemble(host, dialects, lifespan=[lifespan])
