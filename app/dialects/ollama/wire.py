"""Errors as Ollama's clients read them."""

from typing import Any, Final

import msgspec
from litestar import Response

from app import errors
from app.dialects.kit.refusals import documented, headers_for, row_of


class ErrorAnswer(msgspec.Struct, frozen=True):
    """Any refusal or failure."""

    error: str


STATUSES: Final[dict[type[errors.Error], int]] = {
    errors.RequestError: 400,
    errors.BodyTimeout: 408,
    errors.UnknownModel: 404,
    errors.NoModelLoaded: 404,
    errors.AccessError: 401,
    errors.Forbidden: 403,
    errors.TryAgainLater: 503,
    errors.RateLimited: 429,
    errors.Error: 500,
}

refusals: Final = documented(
    ErrorAnswer,
    {
        400: "A field is wrong or not served, or the prompt is longer than the context",
        401: "The server asks for a token and there is none that holds",
        403: "Who asks may not change which models there are",
        404: "No such model on this server",
        413: "The body is too large",
        429: "The rate limit is reached; see Retry-After",
        500: "The model failed",
        503: "The queue is full, or the server is shutting down; see Retry-After",
    },
)


def refuse(error: errors.Error) -> Response[Any]:
    """Answer an error of the tree."""
    status = row_of(STATUSES, error)
    return envelope(status, error.message, headers_for(error, status))


def envelope(status: int, message: str, headers: dict[str, str]) -> Response[Any]:
    """Answer with a status and a message."""
    return Response(ErrorAnswer(message), status_code=status, headers=headers)
