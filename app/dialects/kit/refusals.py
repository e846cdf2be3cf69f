"""Turn an error of the tree into a status, and describe what a route may refuse.

A dialect's table names the errors that it tells apart; any other is told as its nearest ancestor
in the table. Most dialects here answer `{"detail": "…"}`: that form is here too.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec

from app import errors
from app.dialects.kit.dialect import Refuse

T = TypeVar("T")
Documented = Callable[..., dict[int, ResponseSpec]]
"""Takes statuses, gives what a route's `responses` needs for them."""


class Detail(msgspec.Struct, frozen=True):
    """Any refusal or failure, in the form of LocalLab, LLM Host and the server's own pages."""

    detail: str


def row_of(table: Mapping[type[errors.Error], T], error: errors.Error) -> T:
    """Find an error in a table, or else its nearest ancestor; the root must be there."""
    return next(table[kind] for kind in type(error).__mro__ if kind in table)


def headers_for(error: errors.Error, status: int) -> dict[str, str]:
    """Headers that HTTP asks for beside a status: how to authenticate, when to come back."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if isinstance(error, errors.TryAgainLater):
        headers["Retry-After"] = str(error.retry_after_s)
    return headers


def detail(status: int, message: str, headers: dict[str, str]) -> Response[Any]:
    """Answer in the form of `Detail`; an `Envelope`."""
    return Response(Detail(message), status_code=status, headers=headers)


def refuse_with_detail(statuses: Mapping[type[errors.Error], int]) -> Refuse:
    """Make a `Refuse` that answers in the form of `Detail`, with a table's statuses."""

    def refuse(error: errors.Error) -> Response[Any]:
        status = row_of(statuses, error)
        return detail(status, error.message, headers_for(error, status))

    return refuse


def documented(body: type[msgspec.Struct], descriptions: Mapping[int, str]) -> Documented:
    """Make a function that describes refusals for the OpenAPI document.

    Args:
        body: what every refusal's body is.
        descriptions: when a status comes, by status.
    """

    def refusals(*statuses: int) -> dict[int, ResponseSpec]:
        return {
            status: ResponseSpec(body, description=descriptions[status], generate_examples=False)
            for status in statuses
        }

    return refusals


STATUSES: Final[dict[type[errors.Error], int]] = {
    errors.RequestError: 400,
    errors.BodyTimeout: 408,
    errors.ContextOverflow: 413,
    errors.UnknownModel: 404,
    errors.AccessError: 401,
    errors.Forbidden: 403,
    errors.TryAgainLater: 429,
    errors.StorageAway: 503,
    errors.ShuttingDown: 503,
    errors.Error: 500,
}
"""LocalLab's statuses, which the server's own pages share."""
ACCOUNT_STATUSES: Final[dict[type[errors.Error], int]] = {
    **STATUSES,
    errors.UnknownChat: 404,
    errors.UnknownApiKey: 404,
    errors.NoModelLoaded: 503,  # a query can't name one: it is the operator's to load it
    errors.TryAgainLater: 503,
    errors.Overloaded: 429,
    errors.RateLimited: 429,
}
"""The statuses of LLM Host's document, which the accounts share."""
