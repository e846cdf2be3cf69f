"""Refusals of the accounts' endpoints, and the form of `POST /login`."""

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody
from litestar.types import HTTPResponseStartEvent, Scope

from app.dialects.accounts.forms import URL_ENCODED
from app.dialects.accounts.schemas import Credentials
from app.dialects.kit.refusals import ACCOUNT_STATUSES, Detail, documented, refuse_with_detail

refuse: Final = refuse_with_detail(ACCOUNT_STATUSES)
refusals: Final = documented(
    Detail,
    {
        400: "The body or a field of it is wrong",
        401: "No token, or none that holds; wrong name or password",
        403: "Registration is closed, or an API key was sent where only a login may pass",
        404: "I have no such API key",
        429: "Too many attempts: see Retry-After",
    },
)


@dataclass
class TakesCredentials(Operation):
    """Operation of the OpenAPI document whose body is the form of `POST /login`."""

    def __post_init__(self) -> None:
        schema: Any = msgspec.json.schema(Credentials)["$defs"]["Credentials"]
        self.request_body = RequestBody(
            content={URL_ENCODED: OpenAPIMediaType(schema)}, required=True
        )


def uncached(_: Scope, __: HTTPResponseStartEvent) -> list[tuple[bytes, bytes]]:
    """Forbid caches to keep any answer: tokens, keys, whose account it is; `Dialect.headers`."""
    return [(b"cache-control", b"no-store")]
