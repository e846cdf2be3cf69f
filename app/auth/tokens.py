"""Sign and read JWTs. Knows keys and claims; whether a login still stands is in logins.py."""

import hashlib
import secrets
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal
from uuid import UUID

import jwt
import msgspec

from app.auth.keys import KeyRing
from app.errors import NotAuthenticated

ALGORITHM: Final = "HS256"
NAME: Final = "llmhost"
"""The claims `iss` and `aud`: who signs is who reads."""
MAX_CHARACTERS: Final = 1024
"""Length of the longest token that is read at all; ours have about 380 characters."""
_LAST_SECOND: Final = 253_402_300_799
"""Unix time of the last second of the year 9999, where `datetime` ends."""


class Kind(StrEnum):
    """The claim `typ`: one kind of token is never taken for the other."""

    ACCESS = "access"
    REFRESH = "refresh"


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of one of our tokens."""

    kind: Kind
    user_id: UUID
    login_id: UUID
    expires_at: datetime


class _Payload(msgspec.Struct, frozen=True):
    """A token's claims as they are signed. One with others, or of other types, isn't ours."""

    iss: Literal["llmhost"]
    aud: Literal["llmhost"]
    sub: UUID
    sid: UUID
    typ: Kind
    jti: str
    iat: int
    exp: Annotated[int, msgspec.Meta(ge=0, le=_LAST_SECOND)]


class TokenSigner:
    """Claims to token and back."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys = keys
        self._jws = jwt.PyJWS(algorithms=[ALGORITHM])

    def replace_keys(self, keys: KeyRing) -> None:
        """Sign and verify with others from now on."""
        self.keys = keys

    def sign(self, claims: Claims) -> str:
        """Make a token; two with the same claims still differ."""
        payload = _Payload(
            iss=NAME,
            aud=NAME,
            sub=claims.user_id,
            sid=claims.login_id,
            typ=claims.kind,
            jti=secrets.token_urlsafe(16),
            iat=int(time.time()),
            exp=int(claims.expires_at.timestamp()),
        )
        headers = {"kid": self.keys.signing_id}
        encoded = msgspec.json.encode(payload)
        return self._jws.encode(encoded, self.keys.signing_secret, ALGORITHM, headers=headers)

    def read(self, token: str, kind: Kind) -> Claims:
        """Check a token and return what it says.

        Raises:
            NotAuthenticated: it isn't ours, was changed, has expired, or is of the other kind.
        """
        invalid = NotAuthenticated(f"invalid {kind} token")
        if len(token) > MAX_CHARACTERS:
            raise invalid
        try:
            key_id = jwt.get_unverified_header(token).get("kid", "")
            secret = self.keys.get(key_id)
            if secret is None:
                raise invalid
            payload = self._jws.decode(token, secret, algorithms=[ALGORITHM])
            found = msgspec.json.decode(payload, type=_Payload)
        except (jwt.PyJWTError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise invalid from error
        expires_at = datetime.fromtimestamp(found.exp, UTC)
        if expires_at <= datetime.now(UTC):
            raise NotAuthenticated(f"{kind} token has expired")
        if found.typ is not kind:
            raise NotAuthenticated(f"this is the {found.typ} token, expected the {kind} token")
        return Claims(kind=kind, user_id=found.sub, login_id=found.sid, expires_at=expires_at)


def hash_of(secret: str) -> str:
    """Hash a token or key for storage: 64 hexadecimal characters.

    Plain SHA-256, not argon2: a slow hash protects what people think up, and these are random and
    too long to be guessed. Each request would pay for it; and without salt it can be looked up.
    """
    return hashlib.sha256(secret.encode()).hexdigest()
