"""Neptun's chat route, and beyond its document: a user's own chats."""

from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec
from litestar import MediaType, Response, delete, get, patch, post, put
from litestar.di import Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath
from msgspec import UNSET

from app.auth.guards import SECURITY, SignedInRequest, signed_in, within_chosen_rate_limit
from app.contract.conversation import ChatMessage
from app.contract.generation import GenerationRequest, Generator
from app.contract.sampling import SamplingParams
from app.dialects.kit.body import read_object, takes, to_record
from app.dialects.kit.callers import caller_of
from app.dialects.kit.dialect import Dialect
from app.dialects.kit.framing import EVENT_STREAM, asks_for
from app.dialects.kit.host import Host, Provided
from app.dialects.kit.pieces import Pieces
from app.dialects.kit.query import asks, read_query
from app.dialects.kit.router import OwnRouter
from app.dialects.kit.streaming import Reply
from app.dialects.neptun.keeping import ChatKeeper, KeptGeneration
from app.dialects.neptun.schemas import (
    ChatList,
    ChatQuery,
    ChatRequest,
    ChatSummary,
    KeptChat,
    Page,
    Renaming,
    StoredChat,
    StoredMessage,
)
from app.dialects.neptun.wire import (
    DataStream,
    Events,
    PlainText,
    envelope,
    refusals,
    refuse,
    uncached,
)
from app.errors import InvalidParameter
from app.storage import chats
from app.storage.chats import Quota
from app.storage.models import CHAT_ID_CHARACTERS

# The document has no parameters: those of LocalLab's that don't depend on the model.
SAMPLING: Final = SamplingParams(temperature=0.7, top_p=0.9)
NOTHING_KEPT: Final = "-1"
AT_ONCE: Final = 50
"""Messages of a chat that are read from the database, and written, at once."""


@post(
    "/ai/huggingface/{model_publisher:str}/{model_name:str}/chat",
    guards=[signed_in, within_chosen_rate_limit],
    status_code=200,
    media_type=EVENT_STREAM,
    summary="Chat",
    operation_class=asks(ChatQuery, takes(ChatRequest)),
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
) -> Response[Any]:
    """Stream the reply to a conversation, and keep the last question with it.

    The body is the reply's text itself; `Accept: text/event-stream` gives server-sent events,
    `stream_protocol=data` the AI SDK's data stream v1.
    """
    query = read_query(request, ChatQuery)
    query.check()
    body = to_record(await read_object(request), ChatRequest)
    body.check()
    user_id, kept = request.user.user_id, query.chat_id != NOTHING_KEPT
    if kept:
        await keeper.check_room(user_id, query.chat_id, body.question)
    generation = await generator.start(
        GenerationRequest(
            messages=[ChatMessage.of(message.role, message.content) for message in body.messages],
            max_tokens=max_tokens,
            sampling=SAMPLING,
        ),
        f"{model_publisher}/{model_name}",
        await caller_of(request),
    )
    if kept:
        generation = KeptGeneration(
            generation, keeper, user_id=user_id, chat_id=query.chat_id, question=body.question
        )
    reply = Reply(request, generation)
    if query.stream_protocol == "data":
        return await reply.stream(DataStream(), headers={"X-Vercel-AI-Data-Stream": "v1"})
    if query.stream_protocol is UNSET and asks_for(request, EVENT_STREAM):
        return await reply.stream(Events())
    return await reply.stream(PlainText())


@get(
    "/chats",
    summary="My chats",
    operation_class=asks(Page),
    security=SECURITY,
    responses=refusals(400, 401),
)
async def list_chats(request: SignedInRequest, keeper: Provided[ChatKeeper]) -> ChatList:
    """List my chats, the last used first."""
    page, user_id = read_query(request, Page), request.user.user_id
    async with keeper.database.read(str(user_id)) as session:
        found = await chats.list_chats(session, user_id, limit=page.limit, offset=page.offset)
    return ChatList([ChatSummary.of(chat) for chat in found])


@get(
    "/chats/{chat_id:str}",
    media_type=MediaType.JSON,
    summary="Read a chat",
    security=SECURITY,
    responses={
        200: ResponseSpec(StoredChat, description="The chat", generate_examples=False),
        **refusals(400, 401, 404),
    },
)
async def read_chat(
    request: SignedInRequest, keeper: Provided[ChatKeeper], chat_id: FromPath[str]
) -> Response[Any]:
    """Read one of my chats with its messages, by its `chat_id` or its `id`."""
    client = str(request.user.user_id)
    async with keeper.database.read(client) as session:
        found = await chats.find_chat(session, request.user.user_id, chat_id)

    async def pieces() -> AsyncGenerator[bytes, None]:
        """Write a `StoredChat`, some messages at a time: a chat may hold a hundred megabytes.

        Each piece is read on its own, so that no slow client keeps a connection to the database.
        """
        last, between = 0, b""
        yield b'{"chat":%b,"messages":[' % msgspec.json.encode(ChatSummary.of(found))
        while True:
            async with keeper.database.read(client) as session:
                messages = await chats.messages_of(session, found, after=last, limit=AT_ONCE)
            if not messages:
                break
            written = [msgspec.json.encode(StoredMessage.of(message)) for message in messages]
            yield between + b",".join(written)
            last, between = messages[-1].id, b","
        yield b'],"document":%b}' % msgspec.json.encode(found.document)

    return Pieces(pieces(), MediaType.JSON)


@put(
    "/chats/{chat_id:str}",
    summary="Keep a chat",
    operation_class=takes(KeptChat),
    security=SECURITY,
    responses=refusals(400, 401),
)
async def keep_chat(
    request: SignedInRequest, keeper: Provided[ChatKeeper], chat_id: FromPath[str]
) -> ChatSummary:
    """Keep a chat that was held elsewhere, in the place of what was kept under its name.

    For clients that answer over another API and edit or branch what was said.
    """
    ChatQuery(chat_id).check()
    if len(chat_id) > CHAT_ID_CHARACTERS:
        raise InvalidParameter("chat_id", chat_id, f"at most {CHAT_ID_CHARACTERS} characters")
    body, user_id = to_record(await read_object(request), KeptChat), request.user.user_id
    async with keeper.database.write(str(user_id)) as session:
        chat = await chats.replace_chat(
            session,
            user_id,
            chat_id,
            title=body.title,
            messages=[message.to_said() for message in body.messages],
            document=body.document,
            quota=keeper.quota,
        )
        return ChatSummary.of(chat)


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
    body, user_id = to_record(await read_object(request), Renaming), request.user.user_id
    async with keeper.database.write(str(user_id)) as session:
        return ChatSummary.of(await chats.rename_chat(session, user_id, chat_id, body.title))


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
    user_id = request.user.user_id
    async with keeper.database.write(str(user_id)) as session:
        await chats.delete_chat(session, user_id, chat_id)


def dialect(host: Host) -> Dialect:
    """Make everything below `/api`."""
    settings = host.settings
    quota = Quota(chats=settings.chats_per_user, num_bytes=settings.chat_mb_per_user * 1_000_000)
    keeper, max_tokens = ChatKeeper(host.database, quota), settings.default_max_tokens
    stored = OwnRouter(
        path="/",
        guards=[signed_in],
        route_handlers=[list_chats, read_chat, keep_chat, rename_chat, delete_chat],
    )

    return Dialect(
        paths=("/api",),
        router=OwnRouter(
            path="/api",
            route_handlers=[chat, stored],
            dependencies={
                "keeper": Provide(lambda: keeper, sync_to_thread=False),
                "max_tokens": Provide(lambda: max_tokens, sync_to_thread=False),
            },
            tags=["Neptun"],
        ),
        refuse=refuse,
        envelope=envelope,
        headers=uncached,
        close=keeper.finish,
    )
