"""From which addresses a user has signed in, so that strangers can't keep the user out there.

Kept in the database, because a restart or a second process must not make owners strangers.
"""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.tokens import hash_of
from app.storage.models import KnownAddress, User

LIFE: Final = timedelta(days=90)
"""Time without a login after which an address is new again."""
MAX_ADDRESSES: Final = 32
"""Addresses kept for one user; one more replaces the least recently used."""


def hash_at(username_key: str, address: str) -> str:
    """Make what is stored of a user's address.

    It keeps a glance at the table from telling where users are. It protects no address from
    somebody who tries them all.
    """
    return hash_of(f"{username_key} {address}")


async def remember(session: AsyncSession, user: User, address: str) -> None:
    """Note that a user has just signed in at an address. The user's row is locked."""
    now = datetime.now(UTC)
    address_hash = hash_at(user.username_key, address)
    known = await session.get(KnownAddress, (user.id, address_hash))
    if known is not None:
        known.seen_at = now
        return
    latest = (
        select(KnownAddress.address_hash)
        .where(KnownAddress.user_id == user.id, KnownAddress.seen_at > now - LIFE)
        .order_by(KnownAddress.seen_at.desc(), KnownAddress.address_hash)
        .limit(MAX_ADDRESSES - 1)
    )
    kept = (await session.scalars(latest)).all()
    await session.execute(
        delete(KnownAddress).where(
            KnownAddress.user_id == user.id, KnownAddress.address_hash.not_in(kept)
        )
    )
    session.add(KnownAddress(user_id=user.id, address_hash=address_hash, seen_at=now))


async def forget_all(session: AsyncSession, user_id: UUID) -> None:
    """Make every address of a user new again."""
    await session.execute(delete(KnownAddress).where(KnownAddress.user_id == user_id))
