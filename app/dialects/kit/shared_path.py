"""`POST /generate` belongs to several dialects: the body's keys choose among their claims."""

import functools
import operator
from collections.abc import Collection, Sequence
from typing import Any

from litestar import Response, Router, post
from litestar.openapi.datastructures import ResponseSpec

from app.auth.guards import signed_in_if_required, within_rate_limit
from app.dialects.kit.body import read_object, takes
from app.dialects.kit.dialect import Claim, Dialect
from app.dialects.kit.host import AnyRequest
from app.dialects.kit.router import OwnRouter
from app.errors import Error, RequestError
from app.excerpts import shown

_CHOSEN = "claiming_dialect"


def generate_router(dialects: Sequence[Dialect], otherwise: Dialect) -> Router:
    """Make the route.

    Args:
        dialects: those that have claims.
        otherwise: answers a body that chooses none or several.
    """
    owners = {key: dialect for dialect in dialects for key in dialect.claims}
    claims = {key: dialect.claims[key] for key, dialect in owners.items()}

    @post(
        "/generate",
        status_code=200,
        responses=_responses(claims.values()),
        operation_class=takes(
            *(claim.body for claim in claims.values()),
            streams=tuple({stream: None for claim in claims.values() for stream in claim.streams}),
        ),
    )
    async def generate(request: AnyRequest) -> Response[Any]:
        """Go on from a prompt (LocalLab) or answer a query (LLM Host)."""
        body = await read_object(request)
        chosen = [key for key in claims if body.get(key) is not None]
        if len(chosen) != 1:
            names = " and ".join(claims)
            raise RequestError(f"body has {shown(list(body))}, expected exactly one of {names}")
        request.scope["state"][_CHOSEN] = owners[chosen[0]]
        return await claims[chosen[0]].handler(request, body)

    def refuse(request: AnyRequest, error: Error) -> Response[Any]:
        dialect: Dialect = request.scope["state"].get(_CHOSEN, otherwise)
        return dialect.refuse(error)

    return OwnRouter(
        path="/",
        route_handlers=[generate],
        guards=[signed_in_if_required, within_rate_limit],
        exception_handlers={Error: refuse},
    )


def _responses(claims: Collection[Claim]) -> dict[int, ResponseSpec]:
    """Every claim's answers; the bodies of a success are those of any claim."""
    responses = {status: spec for claim in claims for status, spec in claim.responses.items()}
    answers = [claim.responses[200].data_container for claim in claims if 200 in claim.responses]
    if answers:
        responses[200] = ResponseSpec(
            functools.reduce(operator.or_, answers),
            description="By what the body holds, or a stream",
            generate_examples=False,
        )
    return responses
