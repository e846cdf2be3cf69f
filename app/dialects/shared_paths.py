"""`POST /generate` belongs to two dialects: the body's keys choose.

Neither dialect imports the other, and this file imports neither: app/asgi.py plugs them in.
"""

import functools
import operator
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec

from app.dialects.body import Body, read_object, takes
from app.errors import Error, RequestError, shown
from app.generation.service import GenerationService

AnyRequest = Request[Any, Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One dialect's side of the path."""

    handler: Callable[[AnyRequest, Body, GenerationService], Awaitable[Response[Any]]]
    refuse: Callable[[Error], Response[Any]]
    """Its answer to an error that the handler raised."""
    body: type[msgspec.Struct]
    responses: Mapping[int, ResponseSpec]
    """For the OpenAPI document; with 200, the answer that is not a stream."""
    streams: tuple[str, ...] = ()
    """Media types of its streams."""


def generate_route(
    choices: Mapping[str, Choice], refuse: Callable[[Error], Response[Any]]
) -> HTTPRouteHandler:
    """Make the handler of `POST /generate`.

    Args:
        choices: by the body's key that chooses.
        refuse: the answer to a body that chooses none or several.
    """
    responses = {
        status: spec for choice in choices.values() for status, spec in choice.responses.items()
    }
    answers = [c.responses[200].data_container for c in choices.values() if 200 in c.responses]
    if answers:
        responses[200] = ResponseSpec(
            functools.reduce(operator.or_, answers),
            description="By what the body holds, or a stream",
            generate_examples=False,
        )
    body_types = [choice.body for choice in choices.values()]
    streams = tuple({stream: None for choice in choices.values() for stream in choice.streams})

    @post(
        "/generate",
        status_code=200,
        responses=responses,
        operation_class=takes(*body_types, streams=streams),
    )
    async def generate(
        request: AnyRequest, service: NamedDependency[GenerationService]
    ) -> Response[Any]:
        """Go on from a prompt (LocalLab) or answer a query (LLM Host)."""
        try:
            body = await read_object(request)
            chosen = [key for key in choices if body.get(key) is not None]
            if len(chosen) != 1:
                names = " and ".join(choices)
                raise RequestError(f"body has {shown(list(body))}, expected exactly one of {names}")
        except Error as error:
            return refuse(error)
        choice = choices[chosen[0]]
        try:
            return await choice.handler(request, body, service)
        except Error as error:
            return choice.refuse(error)

    return generate
