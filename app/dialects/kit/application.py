"""Make one application out of dialects: their routes, and the answers of last resort.

Last resort is what no route of a dialect answers: no such path or method, a body too large, a bug
of ours. Litestar asks only the application's handlers for these, so the path tells whose envelope
the answer has.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any, Final

from litestar import Litestar, Response, Router, get
from litestar.datastructures import MutableScopeHeaders, State
from litestar.exceptions import HTTPException, NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components
from litestar.params import FromPath
from litestar.response import File
from litestar.types import ASGIApp, ExceptionHandlersMap, Message, Receive, Scope, Send
from openapi_ui_bundles import swagger_ui

from app.auth.guards import SECURITY_SCHEMES, add_rate_headers
from app.dialects.kit.connected import ClientGone
from app.dialects.kit.cors import cors_config
from app.dialects.kit.dialect import Dialect, Owners, Visit
from app.dialects.kit.host import AnyRequest, Host
from app.dialects.kit.host_header import from_known_host
from app.dialects.kit.human_page import DOCUMENT, PAGE_FILES, HumanPage, WrittenDocument
from app.dialects.kit.observed import observed
from app.dialects.kit.receiving import Receiving
from app.dialects.kit.router import OwnRouter
from app.dialects.kit.shared_path import generate_router
from app.errors import Error, ServerError

logger = logging.getLogger(__name__)

CLIENT_GONE: Final = 499
"""Nobody reads it; access logs do."""
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

    async def note_error(error: Exception, scope: Scope) -> None:
        if isinstance(error, Error):
            host.metrics.count_error(error)
        if isinstance(error, ServerError):  # in full: clients are not told where files lie
            logger.error("server_error code=%s path=%s: %s", error.code, scope["path"], error)

    async def add_headers(message: Message, scope: Scope) -> None:
        if message["type"] == "http.response.start":
            # what a client wrote may come back in an answer, and is no page
            MutableScopeHeaders(message)["X-Content-Type-Options"] = "nosniff"
            own = owners.of(scope["path"]).headers
            if own is not None:
                message["headers"] = [*message["headers"], *own(scope, message)]

    application = Litestar(
        [
            *([generate_router(claiming, owners.of("/"))] if claiming else []),
            *(_telling(dialect, dialect.router) for dialect in dialects if dialect.router),
            page_file,
        ],
        guards=[from_known_host(host.settings)],
        dependencies=host.dependencies(),
        exception_handlers=_last_resort(owners),
        lifespan=lifespan,
        state=State({"access": host.auth.access, "max_body_values": host.settings.max_body_values}),
        before_send=[add_rate_headers, name_every_method, add_headers],
        after_exception=[note_error],
        request_max_body_size=host.settings.max_body_bytes,
        openapi_config=OpenAPIConfig(
            title="llmhost",
            version=version("llmhost"),
            use_handler_docstrings=True,
            components=Components(security_schemes=SECURITY_SCHEMES),
            render_plugins=[HumanPage(), WrittenDocument()],
            openapi_router=OwnRouter(
                DOCUMENT, route_handlers=[], include_in_schema=False, before_request=find_nothing
            ),
        ),
        logging_config=None,
        cors_config=cors_config(host.settings.cors_origins),
        **options,
    )
    visits = [visit for dialect in dialects for visit in dialect.visits]
    application.asgi_handler = observed(
        _receiving(application.asgi_handler, host, visits), access_log=host.settings.access_log
    )
    return application


@get(f"{PAGE_FILES}/{{name:str}}", include_in_schema=False)
async def page_file(name: FromPath[str]) -> File:
    """Send a file of the page for humans."""
    files = {path.name: path for path in swagger_ui.static_path.iterdir()}
    if name not in files:
        raise NotFoundException
    # Whole: Litestar's stream of a file ends only when the connection does.
    size = files[name].stat().st_size
    return File(files[name], content_disposition_type="inline", chunk_size=size)


def find_nothing(request: AnyRequest) -> None:
    """Answer 404 as everywhere else where Litestar would send a page of its own.

    Among the routes beside the document only that one has a parameter.

    Raises:
        NotFoundException: the request came to it.
    """
    if request.path_params:
        raise NotFoundException


async def name_every_method(message: Message, scope: Scope) -> None:
    """Let answers that name the methods of a path name them all; for `before_send`.

    Litestar 2.25 answers OPTIONS from the first handler of a path and keeps that when others come.
    HEAD is answered wherever GET is.
    """
    if message["type"] != "http.response.start" or message["status"] not in (204, 405):
        return
    headers = MutableScopeHeaders(message)
    if "Allow" in headers:
        methods = set(headers["Allow"].split(", "))
        if (path := scope.get("path_template")) is not None:
            routes = (r for r in scope["litestar_app"].routes if r.path_format == path)
            methods.update(*(getattr(route, "methods", ()) for route in routes))
        headers["Allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _receiving(inner: ASGIApp, host: Host, visits: Sequence[Visit]) -> ASGIApp:
    """Receive bodies within their time, and read HEAD as GET: the server sends no body for it.

    What is another dialect's at a path is sent on to where that answers it.
    """
    settings = host.settings

    async def handle(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["path"] == "*":  # OPTIONS of the server in general: a way to say hello
                headers = [(b"allow", b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")]
                await send({"type": "http.response.start", "status": 204, "headers": headers})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            if scope["method"] == "HEAD":
                scope["method"] = "GET"
            own = next((path for visit in visits if (path := visit.taken(scope))), None)
            if own is not None:
                scope["path"], scope["raw_path"] = own, own.encode()
            receive = Receiving(
                receive,
                scope["headers"],
                idle_s=settings.body_idle_timeout_s,
                total_s=settings.body_timeout_s,
            )
        await inner(scope, receive, send)

    return handle


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
        return owners.of(request.scope["path"]).envelope(error.status_code, message, headers)

    def on_error(request: AnyRequest, error: Error) -> Response[Any]:
        return owners.of(request.scope["path"]).refuse(error)

    def on_bug(request: AnyRequest, error: Exception) -> Response[Any]:
        logger.error("unexpected_error path=%s", request.scope["path"], exc_info=error)
        return owners.of(request.scope["path"]).envelope(500, "Internal Server Error", {})

    def on_client_gone(request: AnyRequest, _: Exception) -> Response[Any]:
        logger.info("client_gone path=%s", request.scope["path"])
        return Response(b"", status_code=CLIENT_GONE, media_type="text/plain")

    return {
        HTTPException: on_http_error,
        Error: on_error,
        ClientGone: on_client_gone,
        Exception: on_bug,
    }


def _explained(request: AnyRequest, error: HTTPException) -> str:
    match error.status_code:
        case 404:
            return f"there is nothing at {request.scope['path']}"
        case 405:
            return f"{request.method} is not allowed at {request.scope['path']}"
        case 413:
            limit = request.route_handler.resolve_request_max_body_size()
            return f"the body is larger than {limit} bytes"
    return error.detail
