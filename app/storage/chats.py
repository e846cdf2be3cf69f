"""Chats of a user: keep a turn or all of them, list, read, rename, delete.

Every function names the user, so that nothing of another user's can be reached by any id.
Knows no HTTP, and not where a reply comes from.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID

import msgspec
from sqlalchemy import delete, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from app.errors import ChatsFull, UnknownChat
from app.storage.models import CHAT_ID_CHARACTERS, TITLE_CHARACTERS, Chat, Message

# PostgreSQL's text can't hold NUL, SQLite's tools stop reading at it.
NUL: Final = str.maketrans({"\0": "\ufffd"})
ROWS_AT_ONCE: Final = 200
"""Messages that are written without letting others run."""
ROW_BYTES: Final = 100
"""Bytes that a message counts for beside its content: about the size of its row and index."""


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept for one user; 0 is no limit."""

    chats: int
    num_bytes: int
    """As `bytes_of` counts them."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one request added to a chat."""

    question: str
    """Empty: the client's conversation had none."""
    reply: str
    model_id: str
    complete: bool
    """False: the reply broke off."""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A message as a client keeps it."""

    role: Literal["user", "assistant"]
    content: str
    model_id: str | None
    complete: bool


def bytes_of(*contents: str) -> int:
    """Count what messages take of the quota: their UTF-8 bytes, and `ROW_BYTES` each."""
    return sum(len(content.encode()) + ROW_BYTES for content in contents)


async def check_room(
    session: AsyncSession, user_id: UUID, chat_id: str, question: str, quota: Quota
) -> None:
    """Refuse a turn for which there is no room, before its reply is made.

    A reply is not counted here, since nobody knows its length yet, nor are turns that others of
    the user's requests are making: what has begun is kept. So a user can exceed the quota by the
    replies that run at once, and no further.

    Raises:
        ChatsFull: the user has as many chats, or as many bytes in them, as are kept.
    """
    kept = select(func.count(), func.sum(Chat.num_bytes)).where(Chat.user_id == user_id)
    chats, used = (await session.execute(kept)).one()
    if 0 < quota.chats <= chats and await _own(session, user_id, chat_id) is None:
        raise ChatsFull(chats + 1, quota.chats, "chats")
    wanted = int(used or 0) + bytes_of(question)
    if 0 < quota.num_bytes < wanted:
        raise ChatsFull(wanted, quota.num_bytes, "bytes of chats")


async def keep_turn(session: AsyncSession, user_id: UUID, chat_id: str, turn: Turn) -> None:
    """Add a question and its reply, both or neither, to a chat, which is made if it is new.

    Nothing is kept of a user who was deleted meanwhile.
    """
    now = datetime.now(UTC)
    chat = await _own(session, user_id, chat_id, lock=True)
    if chat is None:
        title = _title(turn.question or turn.reply)
        try:
            async with session.begin_nested():
                session.add(Chat(user_id=user_id, chat_id=chat_id, title=title, created_at=now))
        except IntegrityError:
            pass  # made by another request in between, or the user is gone
        chat = await _own(session, user_id, chat_id, lock=True)
        if chat is None:
            return
    # The row of the chat is locked: turns that end at the same time don't interleave.
    chat.updated_at = now
    # a client's record of the chat knows nothing of this turn
    if chat.document is not None:
        chat.num_bytes -= len(chat.document.encode())
        chat.document = None
    question = Message(
        chat=chat.id,
        role="user",
        content=turn.question.translate(NUL),
        complete=True,
        created_at=now,
    )
    reply = Message(
        chat=chat.id,
        role="assistant",
        content=turn.reply.translate(NUL),
        model_id=turn.model_id,
        complete=turn.complete,
        created_at=now,
    )
    # inserted, and so numbered, in this order
    messages = [question, reply] if turn.question else [reply]
    chat.num_bytes += bytes_of(*(message.content for message in messages))
    session.add_all(messages)


async def replace_chat(
    session: AsyncSession,
    user_id: UUID,
    chat_id: str,
    *,
    title: str,
    messages: Sequence[Said],
    document: str | None,
    quota: Quota,
) -> Chat:
    """Keep a whole chat in the place of what was kept under its name, or under our id.

    Raises:
        ChatsFull: there is no room for it; what was kept stays.
    """
    now = datetime.now(UTC)
    title, document = title.translate(NUL), document and document.translate(NUL)
    chat = await _own(session, user_id, chat_id, lock=True)
    if chat is None:
        chat = await _own_by_key(session, user_id, chat_id)
    num_bytes = bytes_of(*(said.content for said in messages)) + len((document or "").encode())
    kept = select(func.count(), func.sum(Chat.num_bytes)).where(Chat.user_id == user_id)
    chats, used = (await session.execute(kept)).one()
    if chat is None and 0 < quota.chats <= chats:
        raise ChatsFull(chats + 1, quota.chats, "chats")
    wanted = int(used or 0) - (0 if chat is None else chat.num_bytes) + num_bytes
    if 0 < quota.num_bytes < wanted:
        raise ChatsFull(wanted, quota.num_bytes, "bytes of chats")
    if chat is None:
        chat = Chat(user_id=user_id, chat_id=chat_id, created_at=now)
        session.add(chat)
    else:
        await session.execute(delete(Message).where(Message.chat == chat.id))
    chat.title, chat.document, chat.num_bytes, chat.updated_at = title, document, num_bytes, now
    await session.flush()
    for start in range(0, len(messages), ROWS_AT_ONCE):
        rows = [
            {
                "chat": chat.id,
                "role": said.role,
                "content": said.content.translate(NUL),
                "model_id": said.model_id,
                "complete": said.complete,
                "created_at": now,
            }
            for said in messages[start : start + ROWS_AT_ONCE]
        ]
        await session.execute(insert(Message), rows)
        await asyncio.sleep(0)  # others on the event loop
    return chat


async def list_chats(
    session: AsyncSession, user_id: UUID, *, limit: int, offset: int
) -> Sequence[Chat]:
    """List a user's chats, the last used first."""
    query = (
        select(Chat)
        .options(defer(Chat.document))  # it may have megabytes, and a list shows none of it
        .where(Chat.user_id == user_id)
        .order_by(Chat.updated_at.desc(), Chat.id)
        .limit(limit)
        .offset(offset)
    )
    return (await session.scalars(query)).all()


async def find_chat(session: AsyncSession, user_id: UUID, chat_id: str) -> Chat:
    """Find one chat of a user, by the client's id or by ours.

    Raises:
        UnknownChat: this user has no such chat.
    """
    # No chat can have such an id; PostgreSQL refuses even to look for NUL.
    if len(chat_id) > CHAT_ID_CHARACTERS or "\0" in chat_id:
        raise UnknownChat(chat_id)
    chat = await _own(session, user_id, chat_id)
    if chat is None:
        chat = await _own_by_key(session, user_id, chat_id)
    if chat is None:
        raise UnknownChat(chat_id)
    return chat


async def messages_of(
    session: AsyncSession, chat: Chat, *, after: int = 0, limit: int | None = None
) -> Sequence[Message]:
    """List messages of a chat, the oldest first.

    Args:
        session: reads.
        chat: whose messages.
        after: begins after the message of this id.
        limit: at most so many; None: all.
    """
    query = select(Message).where(Message.chat == chat.id, Message.id > after)
    return (await session.scalars(query.order_by(Message.id).limit(limit))).all()


async def rename_chat(session: AsyncSession, user_id: UUID, chat_id: str, title: str) -> Chat:
    """Give a chat another title.

    Raises:
        UnknownChat: this user has no such chat.
    """
    chat = await find_chat(session, user_id, chat_id)
    chat.title = title.translate(NUL)
    return chat


async def delete_chat(session: AsyncSession, user_id: UUID, chat_id: str) -> None:
    """Delete a chat with its messages.

    Raises:
        UnknownChat: this user has no such chat.
    """
    chat = await find_chat(session, user_id, chat_id)
    await session.execute(delete(Chat).where(Chat.id == chat.id, Chat.user_id == user_id))


def _title(text: str) -> str:
    """Take a title from the beginning of a text, its white space made single spaces."""
    # So many words make a title, and a text may have millions: the others are not split.
    words = text.split(maxsplit=TITLE_CHARACTERS)[:TITLE_CHARACTERS]
    return " ".join(words)[:TITLE_CHARACTERS].translate(NUL)


async def _own(
    session: AsyncSession, user_id: UUID, chat_id: str, *, lock: bool = False
) -> Chat | None:
    query = select(Chat).where(Chat.user_id == user_id, Chat.chat_id == chat_id)
    found: Chat | None = await session.scalar(query.with_for_update() if lock else query)
    return found


async def _own_by_key(session: AsyncSession, user_id: UUID, key: str) -> Chat | None:
    try:
        query = select(Chat).where(Chat.user_id == user_id, Chat.id == UUID(key))
    except ValueError:
        return None
    found: Chat | None = await session.scalar(query)
    return found
