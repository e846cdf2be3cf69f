"""Events and errors as LLM Host's clients read them."""

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from litestar import Response
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody

from app import errors
from app.dialects.llm_host.schemas import Content, Credentials, Detail, Failure

STATUSES: Final[dict[type[errors.Error], int]] = {
    errors.RequestError: 400,
    errors.ContextOverflow: 413,
    errors.UnknownModel: 404,
    errors.UnknownChat: 404,
    errors.UnknownApiKey: 404,
    errors.NoModelLoaded: 503,  # a query can't name one: it is the operator's to load it
    errors.AccessError: 401,
    errors.Forbidden: 403,
    errors.TryAgainLater: 503,
    errors.Overloaded: 429,
    errors.RateLimited: 429,
    errors.Error: 500,
}
FORM: Final = "application/x-www-form-urlencoded"
NDJSON: Final = "application/x-ndjson"

DESCRIPTIONS: Final[dict[int, str]] = {
    400: "The body or a field of it is wrong",
    401: "No token, or none that holds; wrong name or password",
    403: "Registration is closed, or an API key was sent where only a login may pass",
    404: "There is no such API key of mine",
    413: "The query is longer than the model's context",
    429: "Too many attempts or requests, or the queue is full: see Retry-After",
    500: "The model failed",
    503: "No model is loaded, or the server shuts down",
}


def refusals(*statuses: int) -> dict[int, ResponseSpec]:
    """For the OpenAPI document: what a route may answer instead."""
    return {
        status: ResponseSpec(Detail, generate_examples=False, description=DESCRIPTIONS[status])
        for status in statuses
    }


@dataclass
class TakesCredentials(Operation):
    """Operation of the OpenAPI document whose body is the form of `POST /login`."""

    def __post_init__(self) -> None:
        schema: Any = msgspec.json.schema(Credentials)["$defs"]["Credentials"]
        self.request_body = RequestBody(content={FORM: OpenAPIMediaType(schema)}, required=True)


class EventLines:
    """Stream as the document shows it: `data: {"content": …}`, and nothing at the end."""

    def encode(self, text: str) -> bytes:
        """Frame a piece."""
        return b"data: %b\n\n" % msgspec.json.encode(Content(text))

    def finish(self) -> bytes:
        """End."""
        return b""

    def fail(self, message: str) -> bytes:
        """Frame a failure."""
        return b"data: %b\n\n" % msgspec.json.encode(Failure(message))


class JsonLines:
    """Stream for the documented Python loop, which reads every line as JSON."""

    def encode(self, text: str) -> bytes:
        """Frame a piece."""
        return msgspec.json.encode(Content(text)) + b"\n"

    def finish(self) -> bytes:
        """End."""
        return b""

    def fail(self, message: str) -> bytes:
        """Frame a failure."""
        return msgspec.json.encode(Failure(message)) + b"\n"


def refuse(error: errors.Error) -> Response[Any]:
    """The answer to an error of the tree."""
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if isinstance(error, errors.TryAgainLater):
        headers["Retry-After"] = str(error.retry_after_s)
    return envelope(status, error.message, headers)


def envelope(status: int, message: str, headers: dict[str, str]) -> Response[Any]:
    """The body of every answer that is not a success."""
    return Response(Detail(message), status_code=status, headers=headers)
