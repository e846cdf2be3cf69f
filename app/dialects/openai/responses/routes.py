"""`/v1/responses`: make a response, count its input, and what can be done with one that is kept."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import MediaType, Response, delete, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath
from msgspec import Meta

from app.auth.logins import Principal
from app.contract.generation import GenerationRequest, Generator
from app.dialects.kit.body import read_object, takes
from app.dialects.kit.callers import caller_of
from app.dialects.kit.framing import EVENT_STREAM
from app.dialects.kit.host import AnyRequest, Provided
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.query import asks, read_query
from app.dialects.kit.streaming import Reply
from app.dialects.openai.responses.kept import Past, ResponseKeeper
from app.dialects.openai.responses.records import ResponseAnswer
from app.dialects.openai.responses.schemas import RESPONSES_RULES, ResponseBody, note_harmless
from app.dialects.openai.responses.wire import Answering, ResponseEvents
from app.dialects.openai.taken import note_effort, read
from app.dialects.openai.tools import without_foreign_tools
from app.dialects.openai.wire import refusals
from app.errors import InvalidParameter, RequestError, Unsupported
from app.settings import Settings

_MADE_AT_ONCE: Final = "a response is made while its client waits for it"


class InputTokens(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens an input has."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: Annotated[int, Meta(description="With instructions and the tools as shown.")]


class DeletedResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response that is not kept any more."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class Retrieval(msgspec.Struct, frozen=True, kw_only=True):
    """How a response is read."""

    stream: Annotated[bool, Meta(description="A response that is kept is read whole.")] = False


class ItemsPage(msgspec.Struct, frozen=True, kw_only=True):
    """Which items of an input to list."""

    after: Annotated[str, Meta(max_length=64, description="Begin after this item.")] = ""
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Annotated[
        Literal["asc", "desc"], Meta(description="`desc`: what was said last comes first.")
    ] = "desc"


class _WithId(msgspec.Struct, frozen=True):
    """Of an item, what it is called."""

    id: str


class ItemList(msgspec.Struct, frozen=True, kw_only=True):
    """Items of an input."""

    object: Literal["list"] = "list"
    data: list[msgspec.Raw]
    first_id: str | None
    last_id: str | None
    has_more: bool


@post(
    "/v1/responses",
    status_code=200,
    summary="Response",
    operation_class=takes(ResponseBody, streams=(EVENT_STREAM,)),
    responses=refusals(400, 401, 404, 413, 429, 500, 503),
)
async def make_response(
    request: AnyRequest,
    generator: Provided[Generator],
    settings: Provided[Settings],
    keeper: Provided[ResponseKeeper],
) -> Response[ResponseAnswer]:
    """Answer an input, which is the whole conversation or goes on from a response that is kept."""
    asked, past, wanted, passed = await _read(request, settings, keeper)
    place = await keeper.place(_user_of(request), asked, past, passed)
    started = await generator.start(wanted, asked.model, await caller_of(request))
    reply = Reply(request, started)
    async with reply.guarded():
        note_effort("reasoning.effort", asked.reasoning.effort, passed, thinks=reply.thinks)
    answering = Answering(asked, reply.model_id, started.sampling, stored=place is not None)

    async def keep() -> None:
        if place is not None:
            await keeper.keep(place, answering.response)

    if asked.stream:
        events = ResponseEvents(answering)
        return await reply.stream(events, headers=passed.headers, before_end=keep)
    # the events of the stream build the answer; here nobody reads them
    await reply.feed(lambda _, event: list(answering.take(event)))
    await keep()
    return Response(answering.response, headers=passed.headers)


@post(
    "/v1/responses/input_tokens",
    status_code=200,
    summary="Count a response's input",
    operation_class=takes(ResponseBody),
    responses=refusals(400, 401, 404, 413, 429, 500, 503),
)
async def input_tokens(
    request: AnyRequest,
    generator: Provided[Generator],
    settings: Provided[Settings],
    keeper: Provided[ResponseKeeper],
) -> Response[InputTokens]:
    """Count the tokens that a response with this body would read; none is made."""
    asked, _, wanted, passed = await _read(request, settings, keeper)
    tokens = await generator.tokenize(
        wanted, asked.model, add_special_tokens=False, caller=await caller_of(request)
    )
    return Response(InputTokens(input_tokens=len(tokens.ids)), headers=passed.headers)


@get(
    "/v1/responses/{response_id:str}",
    media_type=MediaType.JSON,
    summary="Read a response",
    operation_class=asks(Retrieval),
    responses={
        200: ResponseSpec(ResponseAnswer, description="The response", generate_examples=False),
        **refusals(400, 401, 404),
    },
)
async def show_response(
    request: AnyRequest, keeper: Provided[ResponseKeeper], response_id: FromPath[str]
) -> Response[Any]:
    """Read one of my responses as it was answered."""
    if read_query(request, Retrieval).stream:
        raise Unsupported("stream", True, _MADE_AT_ONCE)
    answer = await keeper.answer(_user_of(request), response_id)
    return Response(answer, media_type=MediaType.JSON)


@get(
    "/v1/responses/{response_id:str}/input_items",
    summary="List a response's input",
    operation_class=asks(ItemsPage),
    responses=refusals(400, 401, 404),
)
async def list_input_items(
    request: AnyRequest, keeper: Provided[ResponseKeeper], response_id: FromPath[str]
) -> ItemList:
    """List what one of my responses was given: the conversation so far, and what was sent."""
    page = read_query(request, ItemsPage)
    items = await keeper.input_items(_user_of(request), response_id)
    if page.order == "desc":
        items.reverse()
    start = 0
    if page.after:
        places = (place for place, item in enumerate(items, 1) if _id_of(item) == page.after)
        start = next(places, -1)
        if start < 0:
            raise InvalidParameter("after", page.after, "the id of an item of this response")
    shown = items[start : start + page.limit]
    return ItemList(
        data=shown,
        first_id=_id_of(shown[0]) if shown else None,
        last_id=_id_of(shown[-1]) if shown else None,
        has_more=len(items) > start + page.limit,
    )


@delete(
    "/v1/responses/{response_id:str}",
    status_code=200,
    summary="Delete a response",
    responses=refusals(400, 401, 404),
)
async def delete_response(
    request: AnyRequest, keeper: Provided[ResponseKeeper], response_id: FromPath[str]
) -> DeletedResponse:
    """Delete one of my responses; no other can go on from it any more, nor from those after it."""
    await keeper.delete(_user_of(request), response_id)
    return DeletedResponse(id=response_id)


@post(
    "/v1/responses/{response_id:str}/cancel",
    status_code=200,
    summary="Cancel a response",
    responses=refusals(400, 401, 404),
)
async def cancel_response(
    request: AnyRequest, keeper: Provided[ResponseKeeper], response_id: FromPath[str]
) -> ResponseAnswer:
    """Refuse: only what is made in the background could be cancelled, and nothing is here."""
    await keeper.answer(_user_of(request), response_id)
    raise RequestError(f"no response can be cancelled: {_MADE_AT_ONCE}; close the connection")


async def _read(
    request: AnyRequest, settings: Settings, keeper: ResponseKeeper
) -> tuple[ResponseBody, Past, GenerationRequest, PassedOver]:
    """Read a body and the conversation that it goes on from."""
    passed = PassedOver(strict=settings.strict_parameters)
    body = without_foreign_tools(await read_object(request), passed)
    asked = read(body, ResponseBody, RESPONSES_RULES, passed)
    note_harmless(asked, passed)
    past = await keeper.past(_user_of(request), asked.previous_response_id)
    return asked, past, asked.request(past.items), passed


def _id_of(item: msgspec.Raw) -> str:
    return msgspec.json.decode(item, type=_WithId).id


def _user_of(request: AnyRequest) -> UUID | None:
    principal: Principal | None = request.scope.get("user")
    return None if principal is None else principal.user_id
