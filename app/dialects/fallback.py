"""Answers of last resort: no such path or method, a body too large, a bug of ours.

Litestar asks only the application's handlers for these, so the path tells whose envelope it is.
Knows no dialect: app/asgi.py says which path prefix is whose.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from litestar import Request, Response
from litestar.datastructures import MutableScopeHeaders
from litestar.exceptions import HTTPException
from litestar.routes import HTTPRoute
from litestar.types import ExceptionHandlersMap, Message, Scope

from app.dialects.streaming import ClientGone

logger = logging.getLogger(__name__)
Envelope = Callable[[int, str, dict[str, str]], Response[Any]]
AnyRequest = Request[Any, Any, Any]

CLIENT_GONE = 499
"""Nobody reads it; access logs do."""


def fallback_handlers(envelopes: Mapping[str, Envelope]) -> ExceptionHandlersMap:
    """Make the application's exception handlers.

    Args:
        envelopes: by path prefix; the longest that fits is taken, and "" must be there.
    """

    def envelope_of(request: AnyRequest) -> Envelope:
        return envelopes[max(filter(request.url.path.startswith, envelopes), key=len)]

    def on_http_error(request: AnyRequest, error: Exception) -> Response[Any]:
        assert isinstance(error, HTTPException), error
        message, headers = _explained(request, error), error.headers or {}
        return envelope_of(request)(error.status_code, message, headers)

    def on_bug(request: AnyRequest, error: Exception) -> Response[Any]:
        logger.error("unexpected_error path=%s", request.url.path, exc_info=error)
        return envelope_of(request)(500, "Internal Server Error", {})

    def on_client_gone(request: AnyRequest, _: Exception) -> Response[Any]:
        logger.info("client_gone path=%s", request.url.path)
        return Response(b"", status_code=CLIENT_GONE, media_type="text/plain")

    return {HTTPException: on_http_error, ClientGone: on_client_gone, Exception: on_bug}


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
