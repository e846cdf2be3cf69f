"""Logins: one sign-in and everything issued from it, for as long as it stands.

A login ends by signing out, by a new password, with its user, or when one of its old refresh
tokens comes back. Knows no HTTP.
"""

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import delete, or_, select, update

from app.auth import known_addresses, security_log
from app.auth.security_log import Event, Visitor
from app.auth.tokens import Claims, Kind, TokenSigner, hash_of
from app.errors import NotAuthenticated, WrongCredentials
from app.storage.database import Database
from app.storage.models import Login, Role, User

MAX_LOGINS: Final = 1000
"""Logins that one user may have; one more ends the oldest."""


class TokenPair(msgspec.Struct, frozen=True):
    """What a client gets when it signs in or refreshes."""

    access_token: str
    refresh_token: str


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The user who sent a request."""

    user_id: UUID
    username: str
    role: Role
    login_id: UUID | None = None
    """None: an API key was sent."""


class Logins:
    """The logins of one database."""

    def __init__(
        self,
        database: Database,
        signer: TokenSigner,
        *,
        access_life: timedelta,
        refresh_life: timedelta,
        rotate: bool,
    ) -> None:
        self._database = database
        self._signer = signer
        self._access_life = access_life
        self._refresh_life = refresh_life
        self._rotate = rotate

    async def sign_in(self, user: User, address: str | None = None) -> TokenPair:
        """Start a login of a user whose password was just verified.

        Args:
            user: as read before the verification.
            address: where it begins, which is a known address from now on; None: note none.

        Raises:
            WrongCredentials: the password was changed, or the user deleted, in between.
        """
        now = datetime.now(UTC)
        login_id, expires_at = uuid4(), now + self._refresh_life
        refresh_token = self._sign(Kind.REFRESH, user.id, login_id, expires_at)
        async with self._database.write(str(user.id)) as session:
            stored = await session.scalar(
                select(User.password_hash).where(User.id == user.id).with_for_update()
            )
            if stored != user.password_hash:
                raise WrongCredentials
            own = select(Login.id).where(Login.user_id == user.id).order_by(Login.created_at.desc())
            surplus = own.offset(MAX_LOGINS - 1)
            await session.execute(
                delete(Login).where(or_(Login.expires_at <= now, Login.id.in_(surplus)))
            )
            if address is not None:
                await known_addresses.remember(session, user, address)
            session.add(
                Login(
                    id=login_id,
                    user_id=user.id,
                    refresh_hash=hash_of(refresh_token),
                    created_at=now,
                    expires_at=expires_at,
                )
            )
        return TokenPair(self._access(user.id, login_id, expires_at), refresh_token)

    async def refresh(
        self, refresh_token: str, visitor: Visitor | None = None
    ) -> tuple[UUID, TokenPair]:
        """Issue a new access token; with rotation also a new refresh token.

        Returns:
            The user's id and the tokens.

        Raises:
            NotAuthenticated: the token doesn't hold. One that had been replaced ends its login,
                and that is on disk although this refuses.
        """
        claims = self._signer.read(refresh_token, Kind.REFRESH)
        given, client = hash_of(refresh_token), str(claims.user_id)
        async with self._database.read(client) as session:
            stored = await session.scalar(
                select(Login.refresh_hash).where(Login.id == claims.login_id)
            )
        if stored is None:
            raise NotAuthenticated("refresh token was revoked")
        issued, expires_at, current = refresh_token, claims.expires_at, stored == given
        if current and self._rotate:
            expires_at = datetime.now(UTC) + self._refresh_life
            issued = self._sign(Kind.REFRESH, claims.user_id, claims.login_id, expires_at)
            async with self._database.write(client) as session:
                # One statement compares and replaces: of two that come at once, one is the reuse.
                replaced = await session.scalar(
                    update(Login)
                    .where(Login.id == claims.login_id, Login.refresh_hash == given)
                    .values(refresh_hash=hash_of(issued), expires_at=expires_at)
                    .returning(Login.id)
                )
            current = replaced is not None
        if not current:
            await self.sign_out(claims.user_id, claims.login_id)
            security_log.note(
                Event.REFRESH_REUSED, visitor, user_id=claims.user_id, login_id=claims.login_id
            )
            raise NotAuthenticated("refresh token was revoked")
        pair = TokenPair(self._access(claims.user_id, claims.login_id, expires_at), issued)
        return claims.user_id, pair

    async def principal(self, access_token: str) -> Principal:
        """Tell who holds an access token. One look-up each time: a login's end is immediate.

        Raises:
            NotAuthenticated: the token doesn't hold, its login is over or its user is gone.
        """
        claims = self._signer.read(access_token, Kind.ACCESS)
        async with self._database.read(str(claims.user_id)) as session:
            user = await session.scalar(
                select(User)
                .join(Login, Login.user_id == User.id)
                .where(Login.id == claims.login_id, User.id == claims.user_id)
            )
        if user is None:
            raise NotAuthenticated("access token was revoked")
        return Principal(
            user_id=user.id,
            username=user.username,
            role=Role(user.role),
            login_id=claims.login_id,
        )

    async def sign_out(self, user_id: UUID, login_id: UUID) -> None:
        """End a user's login: none of its tokens holds any more."""
        async with self._database.write(str(user_id)) as session:
            await session.execute(
                delete(Login).where(Login.id == login_id, Login.user_id == user_id)
            )

    def _access(self, user_id: UUID, login_id: UUID, login_ends: datetime) -> str:
        expires_at = min(datetime.now(UTC) + self._access_life, login_ends)
        return self._sign(Kind.ACCESS, user_id, login_id, expires_at)

    def _sign(self, kind: Kind, user_id: UUID, login_id: UUID, expires_at: datetime) -> str:
        return self._signer.sign(
            Claims(kind=kind, user_id=user_id, login_id=login_id, expires_at=expires_at)
        )
