"""Streams and errors as Neptun's clients read them."""

from typing import Any, Final, NoReturn

from litestar import Response
from litestar.types import HTTPResponseStartEvent, Scope

from app import errors
from app.dialects.kit.framing import TextEvents, TextFraming, json_line
from app.dialects.kit.refusals import documented, headers_for, row_of
from app.dialects.neptun.schemas import Refusal

NOT_AVAILABLE: Final = "Service not available anymore."

# status and words; {} is the error's own message
_ANSWERS: Final[dict[type[errors.Error], tuple[int, str]]] = {
    errors.RequestError: (400, "Bad Request. {}"),
    errors.UnknownModel: (400, "Invalid model name or publisher"),
    errors.NoModelLoaded: (400, NOT_AVAILABLE),
    errors.ModelBroken: (400, NOT_AVAILABLE),
    errors.ModelTooLarge: (400, NOT_AVAILABLE),
    errors.ProviderUnavailable: (400, NOT_AVAILABLE),
    errors.TryAgainLater: (400, NOT_AVAILABLE),
    errors.RateLimited: (429, "Too Many Requests. {}"),
    errors.UnknownChat: (404, "Not Found. {}"),
    errors.AccessError: (401, "Unauthorized"),
    errors.Forbidden: (403, "Forbidden"),
    errors.Error: (500, "Internal Server Error"),
}
refusals: Final = documented(
    Refusal,
    {
        400: "Unknown model, a model that can't answer now, or a wrong query or body",
        401: "No token, or none that holds",
        404: "This user has no such chat",
        429: "Too many requests: see Retry-After",
        500: "The model failed",
    },
)


class BrokenOff(Exception):
    """The reply can't be finished. It is left to the server, which then breaks the connection."""


class PlainText(TextFraming):
    """The reply itself, as the documented examples print it."""

    def encode(self, text: str) -> bytes:
        """Frame a piece: whole characters."""
        return text.encode()

    def fail(self, error: errors.Error) -> NoReturn:
        """Break off: without the last chunk no client takes half an answer for a whole one."""
        raise BrokenOff(error.message)


class Events(TextEvents):
    """For clients that ask for `text/event-stream`."""

    def fail(self, error: errors.Error) -> NoReturn:
        """Break off, as `PlainText` does."""
        raise BrokenOff(error.message)


class DataStream(PlainText):
    """AI SDK data stream v1, text parts alone: the original command line can't read others."""

    def encode(self, text: str) -> bytes:
        """Frame a piece."""
        return b"0:" + json_line(text)


def refuse(error: errors.Error) -> Response[Any]:
    """Answer an error of the tree."""
    status, words = row_of(_ANSWERS, error)
    return envelope(status, words.format(error.message), headers_for(error, status))


def envelope(status: int, message: str, headers: dict[str, str]) -> Response[Any]:
    """The body of every answer that is not a success."""
    return Response(Refusal(status, message), status_code=status, headers=headers)


def uncached(_: Scope, start: HTTPResponseStartEvent) -> list[tuple[bytes, bytes]]:
    """Forbid caches to keep chats and refusals; `Dialect.headers`. A stream says so itself."""
    said = any(name.lower() == b"cache-control" for name, _ in start["headers"])
    return [] if said else [(b"cache-control", b"no-store")]
