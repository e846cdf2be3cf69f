"""Responses of a user: keep one, find it, read the conversation that it ends, delete it.

Every function that serves a user names that user, so that nothing of another user's can be reached
by any id. Knows no HTTP, and not what the JSON means that it keeps.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased, defer

from app.errors import NotKept, QuotaFull
from app.storage.models import StoredResponse

ROW_BYTES: Final = 200
"""Bytes that a response counts for beside its texts: about the size of its row and indexes."""
MANY_ROWS: Final = 500
"""Rows that are read, or deleted, by one statement."""


def name_of(response_id: UUID) -> str:
    """Tell the id that clients know."""
    return f"resp_{response_id.hex}"


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept for one user; 0 is no limit."""

    responses: int
    num_bytes: int
    """As `StoredResponse.num_bytes` counts them."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """The responses up to one of them, the oldest first."""

    thread: UUID
    responses: list[UUID]
    num_bytes: int
    """UTF-8 bytes of all items."""
    num_input: int
    """How many items of the last response were sent."""


async def check_room(session: AsyncSession, user_id: UUID, num_bytes: int, quota: Quota) -> None:
    """Refuse a response for which there is no room, before it is made.

    What it will say is not counted, since nobody knows its length yet, nor are those that others of
    the user's requests are making: what has begun is kept.

    Args:
        session: reads.
        user_id: who asks.
        num_bytes: of what was sent.
        quota: how much is kept.

    Raises:
        QuotaFull: the user has as many responses, or as many bytes in them, as are kept.
    """
    kept = select(func.count(), func.sum(StoredResponse.num_bytes))
    query = kept.where(StoredResponse.user_id == user_id)
    responses, used = (await session.execute(query)).one()
    if 0 < quota.responses <= responses:
        raise QuotaFull(responses + 1, quota.responses, "responses")
    wanted = int(used or 0) + num_bytes + ROW_BYTES
    if 0 < quota.num_bytes < wanted:
        raise QuotaFull(wanted, quota.num_bytes, "bytes of responses")


async def keep_response(session: AsyncSession, response: StoredResponse) -> None:
    """Keep a response, unless its user was deleted meanwhile.

    Args:
        session: writes.
        response: without its numbers of bytes.
    """
    response.item_bytes = len(response.items.encode())
    response.num_bytes = response.item_bytes + len(response.answer.encode()) + ROW_BYTES
    try:
        async with session.begin_nested():
            session.add(response)
    except IntegrityError:
        pass  # the user is gone


async def find_response(
    session: AsyncSession, user_id: UUID, response_id: UUID, since: datetime
) -> StoredResponse:
    """Find a response, without its items.

    Args:
        session: reads.
        user_id: whose it is.
        response_id: its id.
        since: conversations that nothing was added to since then have expired.

    Raises:
        NotKept: this user has no such response, or not any more.
    """
    query = (
        select(StoredResponse)
        .options(defer(StoredResponse.items))
        .where(StoredResponse.id == response_id, StoredResponse.user_id == user_id)
    )
    found: StoredResponse | None = await session.scalar(query)
    if found is not None:
        newest = select(func.max(StoredResponse.created_at))
        added_at = await session.scalar(newest.where(StoredResponse.thread == found.thread))
        if added_at is not None and added_at > since:
            return found
    raise NotKept("response", name_of(response_id))


async def conversation_to(
    session: AsyncSession, user_id: UUID, response_id: UUID, since: datetime
) -> Conversation:
    """Find the conversation that a response ends; `items_of` reads it.

    Args:
        session: reads.
        user_id: whose it is.
        response_id: the response.
        since: as for `find_response`.

    Raises:
        NotKept: this user has no such response, or one before it was deleted.
    """
    last = await find_response(session, user_id, response_id, since)
    one = aliased(StoredResponse)
    start = (
        select(StoredResponse.id, StoredResponse.previous, StoredResponse.item_bytes)
        .where(StoredResponse.id == response_id, StoredResponse.user_id == user_id)
        .cte("chain", recursive=True)
    )
    chain = start.union_all(
        select(one.id, one.previous, one.item_bytes)
        .join(start, one.id == start.c.previous)
        .where(one.user_id == user_id)
    )
    links = {link.id: link for link in (await session.execute(select(chain))).all()}
    newest_first, at = list[UUID](), response_id
    while at is not None:
        if at not in links:
            raise NotKept("response", name_of(at))
        newest_first.append(at)
        at = links[at].previous
    return Conversation(
        thread=last.thread,
        responses=newest_first[::-1],
        num_bytes=sum(link.item_bytes for link in links.values()),
        num_input=last.num_input,
    )


async def items_of(session: AsyncSession, responses: Sequence[UUID]) -> list[str]:
    """Read what responses added to their conversation: a JSON array each."""
    texts: dict[UUID, str] = {}
    for start in range(0, len(responses), MANY_ROWS):
        some = StoredResponse.id.in_(responses[start : start + MANY_ROWS])
        found = await session.execute(select(StoredResponse.id, StoredResponse.items).where(some))
        texts |= {row.id: row.items for row in found}
    return [texts[one] for one in responses]


async def delete_response(
    session: AsyncSession, user_id: UUID, response_id: UUID, since: datetime
) -> None:
    """Delete a response; those that go on from it can be read, and not be gone on from.

    Raises:
        NotKept: this user has no such response.
    """
    found = await find_response(session, user_id, response_id, since)
    await session.execute(delete(StoredResponse).where(StoredResponse.id == found.id))


async def delete_expired(session: AsyncSession, since: datetime) -> int:
    """Delete some of the conversations that nothing was added to since a moment.

    Returns:
        How many responses; 0: there were none left.
    """
    newest = func.max(StoredResponse.created_at)
    expired = select(StoredResponse.thread).group_by(StoredResponse.thread).having(newest <= since)
    some = select(StoredResponse.id).where(StoredResponse.thread.in_(expired)).limit(MANY_ROWS)
    ids = (await session.scalars(some)).all()
    await session.execute(delete(StoredResponse).where(StoredResponse.id.in_(ids)))
    return len(ids)
