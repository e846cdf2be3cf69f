"""API keys: secrets that a user's programs send in place of an access token.

A key holds until it is revoked, until the day it was given, or as long as its user. A new password
leaves keys alone: what runs unattended goes on. Knows no HTTP.
"""

import asyncio
import logging
import re
import secrets
import string
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

from sqlalchemy import bindparam, delete, func, select, update

from app.auth.logins import Principal
from app.auth.tokens import hash_of
from app.errors import InvalidParameter, NotAuthenticated, TooManyApiKeys, UnknownApiKey
from app.storage.database import Database, DatabaseFailure
from app.storage.models import KEY_NAME_CHARACTERS, ApiKey, Role, User

logger = logging.getLogger(__name__)

# What programs that search for leaked secrets can know one by. A checksum would save them a few
# false finds; nothing else begins like this.
PREFIX: Final = "sk-llmhost-"
# 62 ** 40: 238 bits
_CHARACTERS: Final = string.ascii_letters + string.digits
_LENGTH: Final = 40
_SECRET_CHARACTERS: Final = len(PREFIX) + _LENGTH
_SHAPE: Final = re.compile(rf"{PREFIX}[A-Za-z0-9]{{{_LENGTH}}}")

NAME_RULE: Final = f"1 to {KEY_NAME_CHARACTERS} printable characters, not all of them spaces"
LIFE_DAYS: Final = range(1, 3651)
MAX_KEYS: Final = 100
"""Keys that one user may have; expired ones count until they are revoked."""
ID_CHARACTERS: Final = 64
"""More than any way of writing a UUID has."""
NOTE_EVERY: Final = timedelta(minutes=1)
USES_AT_ONCE: Final = 500
"""Keys whose uses one transaction writes; others write between two of them."""
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_WRITE_USE: Final = (
    update(ApiKey)
    .where(ApiKey.id == bindparam("used_key"))
    .values(last_used_at=bindparam("used_at"))
)


class ApiKeys:
    """The API keys of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[UUID, datetime] = {}
        """Key → when this process last wrote down its use, or tried."""
        self._unwritten: dict[UUID, datetime] = {}
        self._writer: asyncio.Task[None] | None = None

    async def create(
        self, user_id: UUID, name: str, expires_in_days: int | None = None
    ) -> tuple[str, ApiKey]:
        """Make a key; it is on disk when this returns.

        Args:
            user_id: whose it is; it may do what this user may.
            name: the user's word for it, as `NAME_RULE` says.
            expires_in_days: in `LIFE_DAYS`; None: never.

        Returns:
            The secret, which is nowhere else, and what is kept of it.

        Raises:
            InvalidParameter: the name or the life is outside its limit.
            TooManyApiKeys: the user has `MAX_KEYS`.
            NotAuthenticated: the user was deleted in between.
        """
        if not 1 <= len(name) <= KEY_NAME_CHARACTERS or not name.isprintable() or name.isspace():
            raise InvalidParameter("name", name, NAME_RULE)
        if expires_in_days is not None and expires_in_days not in LIFE_DAYS:
            limit = f"{LIFE_DAYS.start} to {LIFE_DAYS.stop - 1}"
            raise InvalidParameter("expires_in_days", expires_in_days, limit)
        secret = PREFIX + "".join(secrets.choice(_CHARACTERS) for _ in range(_LENGTH))
        now = datetime.now(UTC)
        key = ApiKey(
            id=uuid4(),
            user_id=user_id,
            name=name,
            key_hash=hash_of(secret),
            ending=secret[-4:],
            created_at=now,
            expires_at=None if expires_in_days is None else now + timedelta(days=expires_in_days),
        )
        async with self._database.write(str(user_id)) as session:
            # The lock makes creations of one user wait for each other, or two could pass the count.
            owner = await session.scalar(
                select(User.id).where(User.id == user_id).with_for_update()
            )
            if owner is None:
                raise NotAuthenticated("this account was deleted")
            count = await session.scalar(
                select(func.count()).select_from(ApiKey).where(ApiKey.user_id == user_id)
            )
            if count is not None and count >= MAX_KEYS:
                raise TooManyApiKeys(MAX_KEYS)
            session.add(key)
        return secret, key

    async def of_user(self, user_id: UUID) -> Sequence[ApiKey]:
        """List a user's keys, the oldest first; expired ones too."""
        async with self._database.read(str(user_id)) as session:
            keys = select(ApiKey).where(ApiKey.user_id == user_id)
            return (await session.scalars(keys.order_by(ApiKey.created_at, ApiKey.id))).all()

    async def of_everybody(self) -> dict[UUID, list[ApiKey]]:
        """List all keys by whose they are, the oldest first; expired ones too."""
        async with self._database.read() as session:
            keys = await session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id))
        found: dict[UUID, list[ApiKey]] = {}
        for key in keys:
            found.setdefault(key.user_id, []).append(key)
        return found

    async def revoke(self, user_id: UUID, key_id: str) -> None:
        """End one of a user's keys; the next request with it is refused.

        Raises:
            UnknownApiKey: it isn't this user's, or isn't at all.
        """
        if len(key_id) > ID_CHARACTERS:
            raise UnknownApiKey(key_id)
        try:
            wanted = UUID(key_id)
        except ValueError:
            raise UnknownApiKey(key_id) from None
        async with self._database.write(str(user_id)) as session:
            gone = await session.scalar(
                delete(ApiKey)
                .where(ApiKey.id == wanted, ApiKey.user_id == user_id)
                .returning(ApiKey.id)
            )
        if gone is None:
            raise UnknownApiKey(key_id)

    async def principal(self, secret: str, client: str = "") -> Principal:
        """Tell who holds a key. One indexed look-up each time: a revocation is immediate.

        Args:
            secret: what was sent.
            client: from where, for the database's shares.

        Raises:
            NotAuthenticated: the key is malformed, unknown, revoked or has expired.
        """
        if len(secret) != _SECRET_CHARACTERS or _SHAPE.fullmatch(secret) is None:
            raise NotAuthenticated("invalid API key")  # the database isn't asked
        now = datetime.now(UTC)
        # The time that this takes may depend on the hash of what was sent. That tells nothing:
        # nobody can choose a secret by its hash.
        wanted = select(ApiKey, User).join(User, User.id == ApiKey.user_id)
        async with self._database.read(client) as session:
            rows = await session.execute(wanted.where(ApiKey.key_hash == hash_of(secret)))
            found = rows.one_or_none()
        if found is None:
            raise NotAuthenticated("invalid API key")
        key, user = found
        if key.expires_at is not None and key.expires_at <= now:
            raise NotAuthenticated("API key has expired")
        self._note_use(key, now)
        return Principal(user_id=user.id, username=user.username, role=Role(user.role))

    async def finish(self) -> None:
        """Wait until every use is written; call it before the database closes."""
        if self._writer is not None:
            await self._writer

    def _note_use(self, key: ApiKey, now: datetime) -> None:
        """Write down when a key was used, beside the request and at most once in `NOTE_EVERY`."""
        last = max(self._noted.get(key.id, _NEVER), key.last_used_at or _NEVER)
        if now - last < NOTE_EVERY:
            return
        self._noted[key.id] = self._unwritten[key.id] = now
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_uses())

    async def _write_uses(self) -> None:
        """Write what there is, one transaction after the other, however many keys are used."""
        while self._unwritten:
            uses = [
                {"used_key": key_id, "used_at": self._unwritten.pop(key_id)}
                for key_id in list(self._unwritten)[:USES_AT_ONCE]
            ]
            try:
                # no client's share: it waits in line with them, as one
                async with self._database.write() as session:
                    await (await session.connection()).execute(_WRITE_USE, uses)
            except DatabaseFailure:
                # The requests were served; a use after `NOTE_EVERY` tries again.
                logger.warning("api_key_uses_not_noted keys=%d", len(uses), exc_info=True)
            oldest = datetime.now(UTC) - NOTE_EVERY
            self._noted = {key_id: at for key_id, at in self._noted.items() if at > oldest}
