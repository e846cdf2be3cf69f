"""What is said of every request: its id on its answer, and a line in the access log at its end.

Around everything else, so that refusals, streams and bugs are told too. A line has no query, no
header and no text of anybody: a query may hold a secret.
"""

import logging
import time
from typing import Any, Final

from litestar.types import ASGIApp, Message, Receive, Send

from app.auth.guards import request_id_of
from app.current_request import begin_request

logger = logging.getLogger("app.access")

REQUEST_ID: Final = b"x-request-id"
PROBED: Final = ("/health/live", "/health/ready", "/metrics")
"""Asked every few seconds: told only when they fail."""


def observed(inner: ASGIApp, *, access_log: bool) -> ASGIApp:
    """Give every request an id, and its line in the access log where that is wanted."""

    async def handle(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        scope.setdefault("state", {})
        request_id = request_id_of(scope)
        request = begin_request(request_id)
        method, path, status = scope["method"], scope["path"], 500  # a bug of ours until it answers
        began_s = time.perf_counter()

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [pair for pair in message["headers"] if pair[0].lower() != REQUEST_ID]
                message["headers"] = [*headers, (REQUEST_ID, request_id.encode())]
            await send(message)

        try:
            await inner(scope, receive, tell)
        finally:
            if access_log and (path not in PROBED or status >= 400):
                logger.log(
                    logging.WARNING if status >= 500 else logging.INFO,
                    "request method=%s path=%s status=%d duration_ms=%.1f prompt_tokens=%d "
                    "tokens=%d",
                    method,
                    path,
                    status,
                    1000 * (time.perf_counter() - began_s),
                    request.prompt_tokens,
                    request.tokens,
                )

    return handle
