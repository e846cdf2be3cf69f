"""Chats of a user: keep a turn, list, read, rename, delete.

Every function names the user, so that nothing of another user's can be reached by any id.
Knows no HTTP, and not where a reply comes from.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import UnknownChat
from app.storage.models import TITLE_CHARACTERS, Chat, Message

# PostgreSQL's text can't hold NUL, SQLite's tools stop reading at it.
NUL: Final = str.maketrans({"\0": "\ufffd"})


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one request added to a chat."""

    question: str
    """Empty: the client's conversation had none."""
    reply: str
    model_id: str
    complete: bool
    """False: the reply broke off."""


async def keep_turn(session: AsyncSession, user_id: UUID, chat_id: str, turn: Turn) -> None:
    """Add a question and its reply, both or neither, to a chat, which is made if it is new.

    Of a user who was deleted meanwhile nothing is kept.
    """
    now = datetime.now(UTC)
    chat = await _own(session, user_id, chat_id, lock=True)
    if chat is None:
        title = " ".join((turn.question or turn.reply).split())[:TITLE_CHARACTERS].translate(NUL)
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
    session.add_all([question, reply] if turn.question else [reply])


async def list_chats(
    session: AsyncSession, user_id: UUID, *, limit: int, offset: int
) -> Sequence[Chat]:
    """A user's chats, the last used first."""
    query = (
        select(Chat)
        .where(Chat.user_id == user_id)
        .order_by(Chat.updated_at.desc(), Chat.id)
        .limit(limit)
        .offset(offset)
    )
    return (await session.scalars(query)).all()


async def find_chat(session: AsyncSession, user_id: UUID, chat_id: str) -> Chat:
    """One chat of a user, by the client's id or by ours.

    Raises:
        UnknownChat: this user has none.
    """
    if "\0" in chat_id:
        raise UnknownChat(chat_id)  # PostgreSQL refuses even to look for it
    chat = await _own(session, user_id, chat_id)
    if chat is None:
        chat = await _own_by_key(session, user_id, chat_id)
    if chat is None:
        raise UnknownChat(chat_id)
    return chat


async def messages_of(session: AsyncSession, chat: Chat) -> Sequence[Message]:
    """The turns of a chat, oldest first."""
    query = select(Message).where(Message.chat == chat.id).order_by(Message.id)
    return (await session.scalars(query)).all()


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
