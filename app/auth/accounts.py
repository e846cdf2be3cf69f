"""Users and their passwords: create, find, check, change, delete.

Knows nothing of tokens, except that a login ends when the password changes (an API key does not),
and nothing of limits on attempts: those are kept in front_door.py.
"""

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import and_, delete, select, update
from sqlalchemy.exc import IntegrityError

from app.auth import known_addresses
from app.auth.passwords import PasswordHasher, Urgency
from app.errors import (
    InvalidParameter,
    NotAuthenticated,
    UnsuitablePassword,
    UsernameTaken,
    WrongCredentials,
)
from app.storage.database import Database
from app.storage.models import NAME_CHARACTERS, KnownAddress, Login, Role, User

NAME_RULE: Final = (
    f"1 to {NAME_CHARACTERS} characters: letters, digits and . _ - @ +, a letter or digit first"
)
TYPED_NAME_CHARACTERS: Final = 4 * NAME_CHARACTERS
"""Limit of a name as it is typed: NFKC turns at most four characters into one."""
# NIST SP 800-63B: at least 8, and whatever is in it. The upper end bounds what we hash.
PASSWORD_CHARACTERS: Final = range(8, 1025)


class Found(NamedTuple):
    """Who has a name, if anybody has."""

    user: User | None
    known: bool
    """Whether the user has signed in at the address in question."""


class Accounts:
    """The users of one database."""

    def __init__(self, database: Database, hasher: PasswordHasher) -> None:
        self._database = database
        self._hasher = hasher

    async def create(
        self, username: str, password: str, role: Role = Role.USER, *, client: str = ""
    ) -> User:
        """Create a user; it is on disk when this returns.

        Args:
            username: as `NAME_RULE` says.
            password: of `PASSWORD_CHARACTERS`.
            role: what the user may do.
            client: who asks, for the database's shares.

        Raises:
            InvalidParameter: the name breaks `NAME_RULE`.
            UnsuitablePassword: the password is too short or too long.
            UsernameTaken: somebody has the name, perhaps in other capitals.
        """
        key = name_key(username)
        if key is None:
            raise InvalidParameter("username", username, NAME_RULE)
        check_new_password(password)
        if await self.find(username, client=client) is not None:  # before the costly hash
            raise UsernameTaken
        user = User(
            username=unicodedata.normalize("NFKC", username),
            username_key=key,
            password_hash=await self._hasher.hash(password, Urgency.REGISTRATION),
            role=role,
        )
        try:
            async with self._database.write(client) as session:
                session.add(user)
        except IntegrityError as error:
            if await self.find(username, client=client) is None:
                raise
            raise UsernameTaken from error
        return user

    async def verify(self, user: User | None, password: str, urgency: Urgency) -> User:
        """Return the user that was found if the password is theirs.

        None takes as long as a wrong password, and is refused with the same words.

        Raises:
            WrongCredentials: there is no such user, or it is another password.
        """
        if user is None:
            await self._hasher.hash(password, urgency)
            raise WrongCredentials
        if not await self._hasher.verify(user.password_hash, password, urgency):
            raise WrongCredentials
        if self._hasher.outdated(user.password_hash):
            old = user.password_hash
            user.password_hash = await self._hasher.hash(password, urgency)
            async with self._database.write(str(user.id)) as session:
                # only over the hash that was verified: the password may just have been changed
                await session.execute(
                    update(User)
                    .where(User.id == user.id, User.password_hash == old)
                    .values(password_hash=user.password_hash)
                )
        return user

    async def change_password(self, user_id: UUID, current: str, new: str) -> User:
        """Change a password and end every login made with the old one; API keys stay.

        Raises:
            WrongCredentials: `current` is not the password.
            UnsuitablePassword: `new` is too short or too long.
        """
        check_new_password(new)
        user = await self._verified(user_id, current)
        return await self._set_password(user, new)

    async def reset_password(self, username: str, new: str) -> User:
        """Change a password without knowing it, for operators; API keys stay.

        Raises:
            InvalidParameter: there is no such user.
            UnsuitablePassword: `new` is too short or too long.
        """
        check_new_password(new)
        return await self._set_password(await self.named(username), new)

    async def set_role(self, username: str, role: Role) -> User:
        """Give a user a role.

        Raises:
            InvalidParameter: there is no such user.
        """
        user = await self.named(username)
        async with self._database.write() as session:
            await session.execute(update(User).where(User.id == user.id).values(role=role))
        user.role = role
        return user

    async def delete(self, user_id: UUID, password: str) -> None:
        """Delete a user with logins, API keys, chats and messages.

        Raises:
            WrongCredentials: it is not the user's password.
        """
        user = await self._verified(user_id, password)
        async with self._database.write(str(user_id)) as session:
            await session.execute(delete(User).where(User.id == user.id))

    async def remove(self, username: str) -> User:
        """Delete a user as an operator, without the password, with all that is theirs.

        Raises:
            InvalidParameter: there is no such user.
        """
        user = await self.named(username)
        async with self._database.write() as session:
            await session.execute(delete(User).where(User.id == user.id))
        return user

    async def find(self, username: str, *, client: str = "") -> User | None:
        """Find a user by name, in any capitals."""
        key = name_key(username)
        if key is None:
            return None
        async with self._database.read(client) as session:
            found: User | None = await session.scalar(select(User).where(User.username_key == key))
            return found

    async def find_at(self, username: str, address: str) -> Found:
        """Find a user by name, and whether they have signed in at an address.

        One look-up in any case, so that its time doesn't tell whether there is such a user.
        """
        key = name_key(username)
        if key is None:
            return Found(None, known=False)
        query = (
            select(User, KnownAddress.seen_at)
            .outerjoin(
                KnownAddress,
                and_(
                    KnownAddress.user_id == User.id,
                    KnownAddress.address_hash == known_addresses.hash_at(key, address),
                    KnownAddress.seen_at > datetime.now(UTC) - known_addresses.LIFE,
                ),
            )
            .where(User.username_key == key)
        )
        async with self._database.read(address) as session:
            row = (await session.execute(query)).one_or_none()
        return Found(None, known=False) if row is None else Found(row[0], known=row[1] is not None)

    async def named(self, username: str) -> User:
        """Find a user who has to be there.

        Raises:
            InvalidParameter: there is no such user.
        """
        user = await self.find(username)
        if user is None:
            raise InvalidParameter("username", username, "the name of a user")
        return user

    async def all(self) -> Sequence[User]:
        """List every user, by name."""
        async with self._database.read() as session:
            return (await session.scalars(select(User).order_by(User.username_key))).all()

    async def administrators(self, *, client: str = "") -> frozenset[str]:
        """List the administrators' names."""
        async with self._database.read(client) as session:
            names = await session.scalars(select(User.username).where(User.role == Role.ADMIN))
            return frozenset(names)

    async def _verified(self, user_id: UUID, password: str) -> User:
        async with self._database.read(str(user_id)) as session:
            user = await session.get(User, user_id)
        if user is None:
            raise NotAuthenticated("this account was deleted")
        if not await self._hasher.verify(user.password_hash, password, Urgency.OWNER):
            raise WrongCredentials
        return user

    async def _set_password(self, user: User, password: str) -> User:
        user.password_hash = await self._hasher.hash(password, Urgency.OWNER)
        async with self._database.write(str(user.id)) as session:
            await session.execute(
                update(User).where(User.id == user.id).values(password_hash=user.password_hash)
            )
            await session.execute(delete(Login).where(Login.user_id == user.id))
            # whoever knew the old password may have signed in from anywhere
            await known_addresses.forget_all(session, user.id)
        return user


def name_key(username: str) -> str | None:
    """Make what a name is compared by; None: no user can have it."""
    # Before anything else: normalising takes time that grows with the square of a text's length.
    if len(username) > TYPED_NAME_CHARACTERS:
        return None
    normal = unicodedata.normalize("NFKC", username)
    if not 1 <= len(normal) <= NAME_CHARACTERS or not normal[0].isalnum():
        return None
    if not all(character.isalnum() or character in "._-@+" for character in normal):
        return None
    return unicodedata.normalize("NFKC", normal.casefold())


def check_new_password(password: str) -> None:
    """Refuse a password that nobody should have.

    Raises:
        UnsuitablePassword: it is too short or too long.
    """
    if len(password) not in PASSWORD_CHARACTERS:
        limit = f"{PASSWORD_CHARACTERS.start} to {PASSWORD_CHARACTERS.stop - 1}"
        raise UnsuitablePassword(len(password), limit)


def check_typed_password(password: str) -> None:
    """Refuse, before it is hashed, a password that nobody can have because of its length.

    Raises:
        UnsuitablePassword: it is too long.
    """
    if len(password) >= PASSWORD_CHARACTERS.stop:
        raise UnsuitablePassword(len(password), f"at most {PASSWORD_CHARACTERS.stop - 1}")
