"""Errors and frames as OpenAI's clients read them, and the headers beside them."""

import logging
import math
import time
from typing import Any, Final, NamedTuple

from litestar import Response
from litestar.types import ASGIApp, HTTPResponseStartEvent, Receive, Scope, Send

from app import errors
from app.auth.guards import request_id_of
from app.dialects.kit.refusals import documented, headers_for, row_of
from app.dialects.openai.schemas import ErrorAnswer, ErrorDetail

logger = logging.getLogger(__name__)

_LONGEST_PARAM: Final = 200
_STARTED: Final = "openai_started"
_KEPT: Final = ("/v1/responses/", "/v1/files", "/v1/batches")
"""What begins so is kept for one user."""


class ErrorWords(NamedTuple):
    """How an error is told."""

    status: int
    type: str
    code: str | None = None
    """None: the error's own code."""
    param: str | None = None
    """None: the field that the error names, if it does."""


_BAD: Final = "invalid_request_error"
ERRORS: Final[dict[type[errors.Error], ErrorWords]] = {
    errors.RequestError: ErrorWords(400, _BAD),
    errors.BodyTimeout: ErrorWords(408, _BAD),
    errors.InvalidParameter: ErrorWords(400, _BAD, "invalid_value"),
    errors.ContextOverflow: ErrorWords(400, _BAD, "context_length_exceeded"),
    errors.BatchTooLarge: ErrorWords(400, _BAD, param="n"),
    errors.UnknownModel: ErrorWords(404, _BAD, "model_not_found", "model"),
    errors.NoModelLoaded: ErrorWords(404, _BAD, "model_not_found", "model"),
    errors.NotKept: ErrorWords(404, _BAD),
    errors.UnknownPrevious: ErrorWords(400, _BAD),
    errors.AccessError: ErrorWords(401, _BAD, "invalid_api_key"),
    errors.Forbidden: ErrorWords(403, "permission_error"),
    errors.RateLimited: ErrorWords(429, "requests", "rate_limit_exceeded"),
    errors.TryAgainLater: ErrorWords(503, "server_error"),
    errors.Overloaded: ErrorWords(429, "requests"),
    errors.Error: ErrorWords(500, "server_error"),
}

refusals: Final = documented(
    ErrorAnswer,
    {
        400: "A field is wrong, unknown or not served, or the prompt is longer than the context",
        401: "The server asks for a key and there is none that holds",
        404: "No such model on this server, or nothing of this user's by that id",
        413: "The body is too large",
        429: "The queue is full or the rate limit reached; see Retry-After",
        500: "The model failed",
        503: "The server is shutting down; see Retry-After",
    },
)


def detail(error: errors.Error) -> ErrorDetail:
    """Tell an error of the tree, in a body or in a stream."""
    kind, message = row_of(ERRORS, error), error.message
    if isinstance(error, errors.ContextOverflow):
        # the words by which libraries over several providers know this case
        message = (
            f"This model's maximum context length is {error.limit} tokens. "
            f"However, your prompt has {'at least ' * error.at_least}{error.prompt_tokens} tokens."
        )
    field: str | None = getattr(error, "field", None)
    param = kind.param or (field and field[:_LONGEST_PARAM])
    return ErrorDetail(message, kind.type, param, kind.code or error.code)


def refuse(error: errors.Error) -> Response[Any]:
    """Answer an error of the tree."""
    status = row_of(ERRORS, error).status
    headers = headers_for(error, status)
    if isinstance(error, errors.TryAgainLater):
        headers["retry-after-ms"] = str(1000 * error.retry_after_s)
    return Response(ErrorAnswer(detail(error)), status_code=status, headers=headers)


def envelope(status: int, message: str, headers: dict[str, str]) -> Response[Any]:
    """The body of an answer that is no success and comes from no error of the tree."""
    kind = "server_error" if status >= 500 else _BAD
    body = ErrorAnswer(ErrorDetail(message, kind, None, None))
    return Response(body, status_code=status, headers=headers)


def timed(app: ASGIApp) -> ASGIApp:
    """Middleware: note when a request began, for `own_headers`."""

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][_STARTED] = time.perf_counter()
        await app(scope, receive, send)

    return noting


def own_headers(scope: Scope, start: HTTPResponseStartEvent) -> list[tuple[bytes, bytes]]:
    """Say what OpenAI's clients look for on every answer; `Dialect.headers`."""
    request_id = request_id_of(scope)
    if start["status"] >= 500:
        logger.warning("request_failed request_id=%s status=%d", request_id, start["status"])
    added = []
    if (started := scope["state"].get(_STARTED)) is not None:
        milliseconds = 1000 * (time.perf_counter() - started)
        added.append((b"openai-processing-ms", b"%d" % milliseconds))
    present = dict(start["headers"])
    if scope["path"].startswith(_KEPT) and b"cache-control" not in present:
        added.append((b"cache-control", b"no-store"))
    if b"x-ratelimit-limit" in present:
        wait_s = max(0, math.ceil(int(present[b"x-ratelimit-reset"]) - time.time()))
        added += [
            (b"x-ratelimit-limit-requests", present[b"x-ratelimit-limit"]),
            (b"x-ratelimit-remaining-requests", present[b"x-ratelimit-remaining"]),
            (b"x-ratelimit-reset-requests", b"%ds" % wait_s),
        ]
    return added
