"""Make one application of dialects: their routes, and the answers of last resort.

Last resort is what no route of a dialect answers: no such path or method, a body too large, a bug
of ours. Litestar asks only the application's handlers for these, so the path tells whose envelope
the answer has.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any, Final

from litestar import Litestar, Response, Router
from litestar.datastructures import MutableScopeHeaders, State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components
from litestar.routes import HTTPRoute
from litestar.static_files import create_static_files_router
from litestar.types import ExceptionHandlersMap, Message, Scope
from openapi_ui_bundles import swagger_ui

from app.auth.guards import SECURITY_SCHEMES, add_rate_headers
from app.dialects.kit.dialect import Dialect, Owners
from app.dialects.kit.host import AnyRequest, Host
from app.dialects.kit.shared_path import generate_router
from app.dialects.kit.streaming import ClientGone
from app.errors import Error

logger = logging.getLogger(__name__)

CLIENT_GONE: Final = 499
"""Nobody reads it; access logs do."""
PAGE_FILES: Final = "/schema/files"
# Litestar's own pages load their scripts from elsewhere.
HUMAN_PAGE: Final = SwaggerRenderPlugin(
    js_url=f"{PAGE_FILES}/swagger-ui-bundle.js",
    css_url=f"{PAGE_FILES}/swagger-ui.css",
    standalone_preset_js_url=f"{PAGE_FILES}/swagger-ui-standalone-preset.js",
    favicon=f"<link rel='icon' type='image/png' href='{PAGE_FILES}/favicon-32x32.png'>",
)
Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


def assemble(
    host: Host, dialects: Sequence[Dialect], lifespan: Sequence[Lifespan] = (), **options: Any
) -> Litestar:
    """Make the application that speaks some dialects.

    Args:
        host: what their handlers are given.
        dialects: exactly one of them owns `/`.
        lifespan: opens and closes what `host` consists of.
        **options: for Litestar, beyond these.
    """
    owners = Owners(dialects)
    claiming = [dialect for dialect in dialects if dialect.claims]

    async def count_error(error: Exception, _: Scope) -> None:
        if isinstance(error, Error):
            host.metrics.count_error(error)

    async def add_own_headers(message: Message, scope: Scope) -> None:
        if message["type"] == "http.response.start":
            own = owners.of(scope["path"]).headers
            if own is not None:
                message["headers"] = [*message["headers"], *own(scope, message)]

    return Litestar(
        [
            *([generate_router(claiming, owners.of("/"))] if claiming else []),
            *(_telling(dialect, dialect.router) for dialect in dialects if dialect.router),
            create_static_files_router(
                PAGE_FILES,
                [swagger_ui.static_path],
                include_in_schema=False,
                send_as_attachment=False,
            ),
        ],
        dependencies=host.dependencies(),
        exception_handlers=_last_resort(owners),
        lifespan=lifespan,
        state=State({"access": host.auth.access, "max_body_values": host.settings.max_body_values}),
        before_send=[add_rate_headers, name_every_method, add_own_headers],
        after_exception=[count_error],
        request_max_body_size=host.settings.max_body_bytes,
        openapi_config=OpenAPIConfig(
            title="llmhost",
            version=version("llmhost"),
            use_handler_docstrings=True,
            components=Components(security_schemes=SECURITY_SCHEMES),
            render_plugins=[HUMAN_PAGE],
        ),
        logging_config=None,
        **options,
    )


async def name_every_method(message: Message, scope: Scope) -> None:
    """Let an answer to OPTIONS name all methods of its path; for the application's `before_send`.

    Litestar 2.25 makes that answer from the first handler of a path and keeps it when others
    come.
    """
    if scope.get("method") == "OPTIONS" and message["type"] == "http.response.start":
        path = scope["path_template"]
        [route] = (r for r in scope["litestar_app"].routes if r.path_format == path)
        assert isinstance(route, HTTPRoute), route
        MutableScopeHeaders(message)["Allow"] = ", ".join(sorted(route.methods))


def _telling(dialect: Dialect, router: Router) -> Router:
    """Let a dialect tell the errors of its routes in its own words."""

    def refuse(_: AnyRequest, error: Error) -> Response[Any]:
        return dialect.refuse(error)

    # not a router around it: Litestar copies every route once more for each router that holds it
    router.exception_handlers[Error] = refuse
    return router


def _last_resort(owners: Owners) -> ExceptionHandlersMap:
    def on_http_error(request: AnyRequest, error: Exception) -> Response[Any]:
        assert isinstance(error, HTTPException), error
        message, headers = _explained(request, error), error.headers or {}
        return owners.of(request.url.path).envelope(error.status_code, message, headers)

    def on_bug(request: AnyRequest, error: Exception) -> Response[Any]:
        logger.error("unexpected_error path=%s", request.url.path, exc_info=error)
        return owners.of(request.url.path).envelope(500, "Internal Server Error", {})

    def on_client_gone(request: AnyRequest, _: Exception) -> Response[Any]:
        logger.info("client_gone path=%s", request.url.path)
        return Response(b"", status_code=CLIENT_GONE, media_type="text/plain")

    return {HTTPException: on_http_error, ClientGone: on_client_gone, Exception: on_bug}


def _explained(request: AnyRequest, error: HTTPException) -> str:
    match error.status_code:
        case 404:
            return f"there is nothing at {request.url.path}"
        case 405:
            return f"{request.method} is not allowed at {request.url.path}"
        case 413:
            limit = request.route_handler.resolve_request_max_body_size()
            return f"the body is larger than {limit} bytes"
    return error.detail
