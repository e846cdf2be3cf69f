"""Put the packages together: the only file that knows them all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components
from litestar.static_files import create_static_files_router
from openapi_ui_bundles import swagger_ui

from app.auth.auth import create_auth
from app.auth.guards import (
    SECURITY_SCHEMES,
    add_rate_headers,
    admin_if_required,
    from_no_other_site,
    signed_in_if_required,
    within_rate_limit,
)
from app.catalog.catalog import Catalog
from app.dialects import ops, sse
from app.dialects.fallback import fallback_handlers, name_every_method
from app.dialects.llm_host import routes as llm_host
from app.dialects.llm_host import wire as llm_host_wire
from app.dialects.llm_host.schemas import Content, Query
from app.dialects.locallab import management
from app.dialects.locallab import routes as locallab
from app.dialects.locallab import wire as locallab_wire
from app.dialects.locallab.schemas import ErrorAnswer, GenerateAnswer, GenerateBody
from app.dialects.neptun import routes as neptun
from app.dialects.neptun import wire as neptun_wire
from app.dialects.neptun.keeping import ChatKeeper
from app.dialects.openai import routes as openai
from app.dialects.openai import wire as openai_wire
from app.dialects.shared_paths import Choice, generate_route
from app.errors import Error
from app.exposure import warn_if_exposed
from app.generation.service import GenerationService
from app.metrics import Metrics
from app.settings import Settings
from app.shutdown import on_stop_signal
from app.storage.database import Database, database_url

PAGE_FILES = "/schema/files"
# Litestar's own pages load their scripts from elsewhere.
HUMAN_PAGE = SwaggerRenderPlugin(
    js_url=f"{PAGE_FILES}/swagger-ui-bundle.js",
    css_url=f"{PAGE_FILES}/swagger-ui.css",
    standalone_preset_js_url=f"{PAGE_FILES}/swagger-ui-standalone-preset.js",
    favicon=f"<link rel='icon' type='image/png' href='{PAGE_FILES}/favicon-32x32.png'>",
)
GENERATING = (signed_in_if_required, within_rate_limit)  # in this order: users are counted as such


def create_app(settings: Settings) -> Litestar:
    """Make the application; nothing is opened or loaded before its lifespan starts."""
    metrics = Metrics()
    catalog = Catalog(settings, metrics)
    service = GenerationService(catalog)
    database = Database(database_url(settings.database_url, settings.data_dir))
    auth = create_auth(settings, database)
    keeper = ChatKeeper(database)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as cleanup:
            cleanup.push_async_callback(database.close)
            cleanup.push_async_callback(auth.close)
            cleanup.push_async_callback(keeper.finish)
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

    return Litestar(
        [
            _shared_paths(settings, metrics),
            ops.router(
                catalog,
                metrics,
                stalled_after_s=settings.stalled_after_s,
                refuse=locallab_wire.refuse,
                scraping=(admin_if_required,),
                refusal=ErrorAnswer,
            ),
            locallab.router(generating=GENERATING),
            management.router(
                catalog,
                managing=(from_no_other_site, admin_if_required),
                reading=(signed_in_if_required,),
            ),
            llm_host.router(auth),
            neptun.router(keeper, settings.default_max_tokens),
            openai.router(catalog, generating=GENERATING, reading=(signed_in_if_required,)),
            create_static_files_router(
                PAGE_FILES,
                [swagger_ui.static_path],
                include_in_schema=False,
                send_as_attachment=False,
            ),
        ],
        dependencies={"service": Provide(lambda: service, sync_to_thread=False)},
        exception_handlers=fallback_handlers(
            {
                "": locallab_wire.envelope,
                "/api": neptun_wire.envelope,
                **dict.fromkeys(openai_wire.PREFIXES, openai_wire.envelope),
            }
        ),
        lifespan=[lifespan],
        state=State({"access": auth.access}),
        before_send=[add_rate_headers, name_every_method, openai_wire.add_headers],
        after_exception=[ops.counts_errors(metrics)],
        request_max_body_size=settings.max_body_bytes,
        openapi_config=OpenAPIConfig(
            title="llmhost",
            version="0.1.0",
            use_handler_docstrings=True,
            components=Components(security_schemes=SECURITY_SCHEMES),
            render_plugins=[HUMAN_PAGE],
        ),
        logging_config=None,
    )


def _shared_paths(settings: Settings, metrics: Metrics) -> Router:
    """`POST /generate`, LocalLab's or LLM Host's by what the body holds."""
    from_locallab = Choice(
        handler=locallab.generate,
        refuse=ops.counting(locallab_wire.refuse, metrics),
        body=GenerateBody,
        responses={200: ResponseSpec(GenerateAnswer), **locallab.ERRORS},
        streams=(sse.MEDIA_TYPE,),
    )
    from_llm_host = Choice(
        handler=partial(llm_host.generate, max_tokens=settings.default_max_tokens),
        refuse=ops.counting(llm_host_wire.refuse, metrics),
        body=Query,
        responses={
            200: ResponseSpec(Content),
            **llm_host_wire.refusals(400, 401, 413, 429, 500, 503),
        },
        streams=(sse.MEDIA_TYPE, llm_host_wire.NDJSON),
    )
    return Router(
        path="/",
        route_handlers=[
            generate_route({"prompt": from_locallab, "query": from_llm_host}, from_locallab.refuse)
        ],
        guards=GENERATING,
        exception_handlers={Error: lambda _, error: locallab_wire.refuse(error)},
    )
