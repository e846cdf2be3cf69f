"""What takes a password from the network: register, sign in, change the password, delete.

Keeps the limits on attempts (attempts.py has the rule) and writes to the security log. Every text
is held to a length before it is normalised, looked up or hashed. Knows no HTTP.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from app.auth import security_log
from app.auth.accounts import (
    TYPED_NAME_CHARACTERS,
    Accounts,
    check_new_password,
    check_typed_password,
    name_key,
)
from app.auth.attempts import Attempts
from app.auth.logins import Logins, Principal, TokenPair
from app.auth.lookalikes import RESERVED, looks_like
from app.auth.passwords import Urgency
from app.auth.security_log import Event, Visitor
from app.errors import Error, Forbidden, InvalidParameter, RateLimited
from app.storage.models import User

REGISTRATIONS: Final = "registrations"
"""The database's client in whose one share all registrations are: signing in comes first."""


class FrontDoor:
    """Accounts as strangers and their owners reach them."""

    def __init__(
        self, accounts: Accounts, logins: Logins, attempts: Attempts, *, registration_open: bool
    ) -> None:
        self._accounts = accounts
        self._logins = logins
        self._attempts = attempts
        self._registration_open = registration_open

    async def register(self, username: str, password: str, visitor: Visitor) -> User:
        """Create a user on behalf of whoever asks.

        Raises:
            Forbidden: registration is closed.
            RateLimited: this address registered too often.
            Overloaded: too many others are registering.
            InvalidParameter: the name breaks the rule for names, or looks like the name of an
                administrator.
            UnsuitablePassword: the password is too short or too long.
            UsernameTaken: somebody has the name, perhaps in other capitals.
        """
        refused = Event.REGISTRATION_REFUSED
        with _noted(visitor, refused, throttled=refused):
            if not self._registration_open:
                raise Forbidden("registration is closed on this server")
            await self._attempts.count_registration(visitor.address)
            key = name_key(username)
            if key is not None and looks_like(
                username, RESERVED | await self._accounts.administrators(client=REGISTRATIONS)
            ):
                raise InvalidParameter(
                    "username", username, "a name that doesn't look like an administrator's"
                )
            user = await self._accounts.create(username, password, client=REGISTRATIONS)
        security_log.note(Event.REGISTERED, visitor, user=user.username, user_id=user.id)
        return user

    async def sign_in(self, username: str, password: str, visitor: Visitor) -> TokenPair:
        """Start a login.

        Raises:
            RateLimited: too many attempts; whether the password is right was not looked at.
            Overloaded: too many others are signing in.
            InvalidParameter, UnsuitablePassword: the name or the password is longer than any.
            WrongCredentials: no user has this name and password.
        """
        with _noted(visitor, Event.SIGN_IN_REFUSED) as who:
            if len(username) > TYPED_NAME_CHARACTERS:
                limit = f"at most {TYPED_NAME_CHARACTERS} characters"
                raise InvalidParameter("username", username, limit)
            check_typed_password(password)
            await self._attempts.count_address(visitor.address)
            user, known = await self._accounts.find_at(username, visitor.address)
            if user is not None:
                who |= {"user": user.username, "user_id": user.id}
            account = name_key(username) or ""
            await self._attempts.count_account(account, visitor.address, known=known)
            urgency = Urgency.OWNER if known else Urgency.SIGN_IN
            user = await self._accounts.verify(user, password, urgency)
            await self._attempts.succeeded(account, visitor.address)
            pair = await self._logins.sign_in(user, visitor.address)
        security_log.note(Event.SIGNED_IN, visitor, user=user.username, user_id=user.id)
        return pair

    async def refresh(self, refresh_token: str, visitor: Visitor) -> TokenPair:
        """Issue a new access token; with rotation also a new refresh token.

        Raises:
            NotAuthenticated: the refresh token doesn't hold.
        """
        with _noted(visitor, Event.REFRESH_REFUSED):
            user_id, pair = await self._logins.refresh(refresh_token, visitor)
        security_log.note(Event.REFRESHED, visitor, user_id=user_id)
        return pair

    async def sign_out(self, principal: Principal, visitor: Visitor) -> None:
        """End a signed-in user's login."""
        assert principal.login_id is not None, "an API key has no login"
        await self._logins.sign_out(principal.user_id, principal.login_id)
        _note_of(Event.SIGNED_OUT, principal, visitor)

    async def change_password(
        self, principal: Principal, current: str, new: str, visitor: Visitor
    ) -> TokenPair:
        """Change a signed-in user's password, end all logins and start a new one.

        Raises:
            RateLimited: too many attempts with this login.
            WrongCredentials: `current` is not the password.
            UnsuitablePassword: one of the two is too short or too long.
        """
        check_new_password(new)
        async with self._proof(principal, current, visitor):
            user = await self._accounts.change_password(principal.user_id, current, new)
            pair = await self._logins.sign_in(user, visitor.address)
        _note_of(Event.PASSWORD_CHANGED, principal, visitor)
        return pair

    async def delete_account(self, principal: Principal, password: str, visitor: Visitor) -> None:
        """Delete a signed-in user with everything that is theirs.

        Raises:
            RateLimited: too many attempts with this login.
            WrongCredentials: it is not the password.
            UnsuitablePassword: it is longer than any.
        """
        async with self._proof(principal, password, visitor):
            await self._accounts.delete(principal.user_id, password)
        _note_of(Event.ACCOUNT_DELETED, principal, visitor)

    @asynccontextmanager
    async def _proof(
        self, principal: Principal, password: str, visitor: Visitor
    ) -> AsyncIterator[None]:
        """Hold an attempt to prove the password to its limits, and note one that fails."""
        assert principal.login_id is not None, "an API key proves no password"
        with _noted(visitor, Event.PROOF_REFUSED) as who:
            who |= {"user": principal.username, "user_id": principal.user_id}
            check_typed_password(password)
            await self._attempts.count_proof(principal.login_id)
            yield


@contextmanager
def _noted(
    visitor: Visitor, refused: Event, throttled: Event = Event.SIGN_IN_THROTTLED
) -> Iterator[dict[str, object]]:
    """Note a refusal together with what the block puts into the dictionary."""
    who: dict[str, object] = {}
    try:
        yield who
    except Error as error:
        event = throttled if isinstance(error, RateLimited) else refused
        # the code alone: a message may quote what was sent, and that may be a password
        security_log.note(event, visitor, **who, reason=error.code)
        raise


def _note_of(event: Event, principal: Principal, visitor: Visitor) -> None:
    security_log.note(event, visitor, user=principal.username, user_id=principal.user_id)
