"""Refusals of the accounts' endpoints, and the form of `POST /login`."""

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody

from app.dialects.accounts.schemas import Credentials
from app.dialects.kit.refusals import ACCOUNT_STATUSES, Detail, documented, refuse_with_detail

FORM: Final = "application/x-www-form-urlencoded"

refuse: Final = refuse_with_detail(ACCOUNT_STATUSES)
refusals: Final = documented(
    Detail,
    {
        400: "The body or a field of it is wrong",
        401: "No token, or none that holds; wrong name or password",
        403: "Registration is closed, or an API key was sent where only a login may pass",
        404: "There is no such API key of mine",
        429: "Too many attempts: see Retry-After",
    },
)


@dataclass
class TakesCredentials(Operation):
    """Operation of the OpenAPI document whose body is the form of `POST /login`."""

    def __post_init__(self) -> None:
        schema: Any = msgspec.json.schema(Credentials)["$defs"]["Credentials"]
        self.request_body = RequestBody(content={FORM: OpenAPIMediaType(schema)}, required=True)
