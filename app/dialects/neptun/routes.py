"""Neptun's chat route, and beyond its document: what one's chats hold."""

from typing import Annotated, Any, Final, Literal

from litestar import Response, Router, delete, get, patch, post
from litestar.di import Provide
from litestar.exceptions import ValidationException
from litestar.params import FromPath, FromQuery, QueryParameter

from app.auth.guards import SECURITY, SignedInRequest, signed_in, within_rate_limit
from app.contract.conversation import ChatMessage
from app.contract.generation import GenerationRequest, Generator
from app.contract.sampling import SamplingParams
from app.dialects.kit.body import read_object, takes, to_record
from app.dialects.kit.callers import caller_of
from app.dialects.kit.dialect import Dialect
from app.dialects.kit.framing import EVENT_STREAM, asks_for
from app.dialects.kit.host import AnyRequest, Host, Provided
from app.dialects.kit.streaming import Reply
from app.dialects.neptun.keeping import ChatKeeper, KeptGeneration
from app.dialects.neptun.schemas import (
    ChatList,
    ChatRequest,
    ChatSummary,
    Renaming,
    StoredChat,
)
from app.dialects.neptun.wire import (
    DataStream,
    Events,
    PlainText,
    envelope,
    refusals,
    refuse,
)
from app.errors import InvalidParameter, RequestError
from app.storage import chats
from app.storage.models import CHAT_ID_CHARACTERS

# The document has no parameters: those of LocalLab's that don't depend on the model.
SAMPLING: Final = SamplingParams(temperature=0.7, top_p=0.9)
NOTHING_KEPT: Final = "-1"

ChatId = Annotated[
    str,
    QueryParameter(
        min_length=1,
        max_length=CHAT_ID_CHARACTERS,
        pattern=r"^[^\x00]*$",  # no database can hold NUL in a text
        description="The client's name of the chat; `-1`: keep nothing",
    ),
]


@post(
    "/ai/huggingface/{model_publisher:str}/{model_name:str}/chat",
    guards=[signed_in, within_rate_limit],
    status_code=200,
    media_type=EVENT_STREAM,
    summary="Chat",
    operation_class=takes(ChatRequest),
    security=SECURITY,
    responses=refusals(400, 401, 429, 500),
)
async def chat(
    *,
    request: SignedInRequest,
    generator: Provided[Generator],
    keeper: Provided[ChatKeeper],
    max_tokens: Provided[int],
    model_publisher: FromPath[str],
    model_name: FromPath[str],
    chat_id: ChatId,
    stream_protocol: FromQuery[Literal["text", "data"] | None] = None,
) -> Response[Any]:
    """Stream the reply to a conversation, and keep the last question with it.

    The body is the reply's text itself; `Accept: text/event-stream` gives server-sent events,
    `stream_protocol=data` the AI SDK's data stream v1.
    """
    body = to_record(await read_object(request), ChatRequest)
    body.check()
    generation = await generator.start(
        GenerationRequest(
            messages=[ChatMessage.of(message.role, message.content) for message in body.messages],
            max_tokens=max_tokens,
            sampling=SAMPLING,
        ),
        f"{model_publisher}/{model_name}",
        await caller_of(request),
    )
    if chat_id != NOTHING_KEPT:
        generation = KeptGeneration(
            generation,
            keeper,
            user_id=request.user.user_id,
            chat_id=chat_id,
            question=body.question,
        )
    reply = Reply(request, generation)
    if stream_protocol == "data":
        return await reply.stream(DataStream(), headers={"X-Vercel-AI-Data-Stream": "v1"})
    if stream_protocol is None and asks_for(request, EVENT_STREAM):
        return await reply.stream(Events())
    return await reply.stream(PlainText())


@get("/chats", summary="My chats", security=SECURITY, responses=refusals(400, 401))
async def list_chats(
    request: SignedInRequest,
    keeper: Provided[ChatKeeper],
    limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
    offset: Annotated[int, QueryParameter(ge=0, le=1_000_000)] = 0,
) -> ChatList:
    """List my chats, the last used first."""
    async with keeper.database.read() as session:
        found = await chats.list_chats(session, request.user.user_id, limit=limit, offset=offset)
    return ChatList([ChatSummary.of(chat) for chat in found])


@get(
    "/chats/{chat_id:str}",
    summary="Read a chat",
    security=SECURITY,
    responses=refusals(400, 401, 404),
)
async def read_chat(
    request: SignedInRequest, keeper: Provided[ChatKeeper], chat_id: FromPath[str]
) -> StoredChat:
    """Read one of my chats with its messages, by its `chat_id` or its `id`."""
    async with keeper.database.read() as session:
        found = await chats.find_chat(session, request.user.user_id, chat_id)
        return StoredChat.of(found, await chats.messages_of(session, found))


@patch(
    "/chats/{chat_id:str}",
    summary="Rename a chat",
    operation_class=takes(Renaming),
    security=SECURITY,
    responses=refusals(400, 401, 404),
)
async def rename_chat(
    request: SignedInRequest, keeper: Provided[ChatKeeper], chat_id: FromPath[str]
) -> ChatSummary:
    """Give one of my chats another title."""
    body = to_record(await read_object(request), Renaming)
    async with keeper.database.write() as session:
        return ChatSummary.of(
            await chats.rename_chat(session, request.user.user_id, chat_id, body.title)
        )


@delete(
    "/chats/{chat_id:str}",
    summary="Delete a chat",
    security=SECURITY,
    responses=refusals(400, 401, 404),
)
async def delete_chat(
    request: SignedInRequest, keeper: Provided[ChatKeeper], chat_id: FromPath[str]
) -> None:
    """Delete one of my chats with its messages."""
    async with keeper.database.write() as session:
        await chats.delete_chat(session, request.user.user_id, chat_id)


def dialect(host: Host) -> Dialect:
    """Make everything below `/api`."""
    keeper = ChatKeeper(host.database)
    max_tokens = host.settings.default_max_tokens
    stored = Router(
        path="/",
        guards=[signed_in],
        route_handlers=[list_chats, read_chat, rename_chat, delete_chat],
    )

    def refuse_query(request: AnyRequest, error: ValidationException) -> Response[Any]:
        return refuse(_explained(request, error))

    return Dialect(
        paths=("/api",),
        router=Router(
            path="/api",
            route_handlers=[chat, stored],
            dependencies={
                "keeper": Provide(lambda: keeper, sync_to_thread=False),
                "max_tokens": Provide(lambda: max_tokens, sync_to_thread=False),
            },
            exception_handlers={ValidationException: refuse_query},
            tags=["Neptun"],
        ),
        refuse=refuse,
        envelope=envelope,
        close=keeper.finish,
    )


def _explained(request: AnyRequest, error: ValidationException) -> RequestError:
    """Litestar's refusal of a query parameter as one of ours."""
    if not isinstance(error.extra, list) or not error.extra:
        return RequestError(error.detail)  # names a parameter that is missing
    field, message = error.extra[0]["key"], error.extra[0]["message"]
    limit = message.removeprefix("Expected ").replace("`", "")
    return InvalidParameter(field, request.query_params.get(field), limit)
