"""Errors as Anthropic's clients read them, the headers beside them, and their key's own header."""

from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec
from litestar import Response
from litestar.types import ASGIApp, HTTPResponseStartEvent, Receive, Scope, Send

from app import errors
from app.auth.guards import request_id_of
from app.current_request import current_request
from app.dialects.kit.framing import json_event
from app.dialects.kit.refusals import documented, headers_for, row_of


class ErrorWords(NamedTuple):
    """How an error is told."""

    status: int
    type: str


class ErrorDetail(msgspec.Struct, frozen=True):
    """What went wrong."""

    type: str
    message: str


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Any refusal or failure."""

    type: Literal["error"] = "error"
    error: ErrorDetail
    request_id: str | None
    """As in the header `request-id`."""

    @classmethod
    def of(cls, told: ErrorDetail) -> "ErrorAnswer":
        """Tell of the request that is under way."""
        request = current_request()
        return cls(error=told, request_id=None if request is None else request.request_id)


_BAD: Final = "invalid_request_error"
_BUSY: Final = ErrorWords(529, "overloaded_error")
ERRORS: Final[dict[type[errors.Error], ErrorWords]] = {
    errors.RequestError: ErrorWords(400, _BAD),
    errors.BodyTimeout: ErrorWords(408, _BAD),
    errors.UnknownModel: ErrorWords(404, "not_found_error"),
    errors.NoModelLoaded: ErrorWords(404, "not_found_error"),
    errors.AccessError: ErrorWords(401, "authentication_error"),
    errors.Forbidden: ErrorWords(403, "permission_error"),
    errors.TryAgainLater: _BUSY,
    errors.RateLimited: ErrorWords(429, "rate_limit_error"),
    errors.Error: ErrorWords(500, "api_error"),
}
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}

refusals: Final = documented(
    ErrorAnswer,
    {
        400: "A field is wrong, unknown or not served, or the prompt is longer than the context",
        401: "The server asks for a key and there is none that holds",
        404: "No such model on this server",
        413: "The body is too large",
        429: "The rate limit is reached; see Retry-After",
        500: "The model failed",
        529: "The queue is full, or the server is shutting down; see Retry-After",
    },
)


def detail(error: errors.Error) -> ErrorDetail:
    """Tell an error of the tree, in a body or in a stream."""
    # generation names fields as most dialects do; these are where they are in this one's bodies
    message = error.message.replace(".function.parameters", ".input_schema").replace(
        "messages[].tool_calls[].function.arguments", "messages[].content[].input"
    )
    if isinstance(error, errors.ContextOverflow):
        # the words by which agents know that they have to shorten the conversation
        least = "at least " * error.at_least
        message = f"prompt is too long: {least}{error.prompt_tokens} tokens > {error.limit} maximum"
    return ErrorDetail(row_of(ERRORS, error).type, message)


def refuse(error: errors.Error) -> Response[Any]:
    """Answer an error of the tree."""
    status = row_of(ERRORS, error).status
    headers = headers_for(error, status)
    if isinstance(error, errors.TryAgainLater):
        headers["retry-after-ms"] = str(1000 * error.retry_after_s)
    return Response(ErrorAnswer.of(detail(error)), status_code=status, headers=headers)


def envelope(status: int, message: str, headers: dict[str, str]) -> Response[Any]:
    """The body of an answer that is no success and comes from no error of the tree."""
    kind = "api_error" if status >= 500 else _TYPES.get(status, _BAD)
    answer = ErrorAnswer.of(ErrorDetail(kind, message))
    return Response(answer, status_code=status, headers=headers)


def error_event(error: errors.Error) -> bytes:
    """Tell a failure in a stream, after which nothing comes."""
    return json_event(ErrorAnswer.of(detail(error)), "error")


def keyed(app: ASGIApp) -> ASGIApp:
    """Middleware: read `x-api-key` as a bearer token, where there is none."""

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        key = headers.get(b"x-api-key")
        if key is not None and not headers.get(b"authorization", b"").lower().startswith(b"bearer"):
            kept = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
            scope["headers"] = [*kept, (b"authorization", b"Bearer " + key)]
        await app(scope, receive, send)

    return reading


def own_headers(scope: Scope, start: HTTPResponseStartEvent) -> list[tuple[bytes, bytes]]:
    """Say what Anthropic's clients look for on every answer; `Dialect.headers`."""
    added = [(b"request-id", request_id_of(scope).encode())]
    present = dict(start["headers"])
    if b"x-ratelimit-limit" in present:
        reset = datetime.fromtimestamp(int(present[b"x-ratelimit-reset"]), UTC)
        name = b"anthropic-ratelimit-requests-"
        added += [
            (name + b"limit", present[b"x-ratelimit-limit"]),
            (name + b"remaining", present[b"x-ratelimit-remaining"]),
            (name + b"reset", f"{reset:%Y-%m-%dT%H:%M:%SZ}".encode()),
        ]
    return added
