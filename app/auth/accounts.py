"""Users and their passwords: register, check, change, delete.

Knows nothing of tokens, but that a login ends when the password changes (an API key does not).
"""

import unicodedata
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError

from app.auth.passwords import PasswordHasher
from app.errors import (
    Forbidden,
    InvalidParameter,
    NotAuthenticated,
    UnsuitablePassword,
    UsernameTaken,
    WrongCredentials,
)
from app.storage.database import Database
from app.storage.models import NAME_CHARACTERS, Login, Role, User

NAME_RULE: Final = (
    f"1 to {NAME_CHARACTERS} characters: letters, digits and . _ - @ +, a letter or digit first"
)
# NIST SP 800-63B: at least 8, and whatever is in it. The upper end bounds what we hash.
PASSWORD_CHARACTERS: Final = range(8, 1025)


class Accounts:
    """The users of one database."""

    def __init__(
        self, database: Database, hasher: PasswordHasher, *, registration_open: bool
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._registration_open = registration_open

    async def register(self, username: str, password: str) -> User:
        """Create a user on behalf of whoever asks.

        Raises:
            Forbidden: registration is closed.
            InvalidParameter, UnsuitablePassword, UsernameTaken: as for `create`.
        """
        if not self._registration_open:
            raise Forbidden("registration is closed on this server")
        return await self.create(username, password)

    async def create(self, username: str, password: str, role: Role = Role.USER) -> User:
        """Create a user; it is on disk when this returns.

        Raises:
            InvalidParameter: the name breaks `NAME_RULE`.
            UnsuitablePassword: the password is too short or too long.
            UsernameTaken: somebody has the name, perhaps in other capitals.
        """
        key = name_key(username)
        if key is None:
            raise InvalidParameter("username", username, NAME_RULE)
        check_new_password(password)
        if await self.find(username) is not None:  # before the costly hash
            raise UsernameTaken
        user = User(
            username=unicodedata.normalize("NFKC", username),
            username_key=key,
            password_hash=await self._hasher.hash(password),
            role=role,
        )
        try:
            async with self._database.write() as session:
                session.add(user)
        except IntegrityError as error:
            raise UsernameTaken from error
        return user

    async def verify(self, username: str, password: str) -> User:
        """Return the user with this name and password.

        An unknown name takes as long as a wrong password, and is refused with the same words.

        Raises:
            WrongCredentials: there is none.
        """
        user = await self.find(username)
        if user is None:
            await self._hasher.hash(password)
            raise WrongCredentials
        if not await self._hasher.verify(user.password_hash, password):
            raise WrongCredentials
        if self._hasher.outdated(user.password_hash):
            old, user.password_hash = user.password_hash, await self._hasher.hash(password)
            async with self._database.write() as session:
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
        async with self._database.write() as session:
            await session.execute(delete(User).where(User.id == user.id))

    async def find(self, username: str) -> User | None:
        """The user of a name in any capitals."""
        key = name_key(username)
        if key is None:
            return None
        async with self._database.read() as session:
            found: User | None = await session.scalar(select(User).where(User.username_key == key))
            return found

    async def named(self, username: str) -> User:
        """The same.

        Raises:
            InvalidParameter: there is no such user.
        """
        user = await self.find(username)
        if user is None:
            raise InvalidParameter("username", username, "the name of a user")
        return user

    async def all(self) -> Sequence[User]:
        """Every user, by name."""
        async with self._database.read() as session:
            return (await session.scalars(select(User).order_by(User.username_key))).all()

    async def _verified(self, user_id: UUID, password: str) -> User:
        async with self._database.read() as session:
            user = await session.get(User, user_id)
        if user is None:
            raise NotAuthenticated("this account was deleted")
        if not await self._hasher.verify(user.password_hash, password):
            raise WrongCredentials
        return user

    async def _set_password(self, user: User, password: str) -> User:
        user.password_hash = await self._hasher.hash(password)
        async with self._database.write() as session:
            await session.execute(
                update(User).where(User.id == user.id).values(password_hash=user.password_hash)
            )
            await session.execute(delete(Login).where(Login.user_id == user.id))
        return user


def name_key(username: str) -> str | None:
    """What a name is compared by; none: no user can have it."""
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
