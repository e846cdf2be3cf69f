"""Sign and read JWTs. Knows keys and claims; whether a login still stands is in logins.py."""

import hashlib
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import jwt
import msgspec

from app.auth.keys import KeyRing
from app.errors import NotAuthenticated

ALGORITHM: Final = "HS256"
ISSUER: Final = "llmhost"
AUDIENCE: Final = "llmhost"


class Kind(StrEnum):
    """The claim `typ`: one kind of token is never taken for the other."""

    ACCESS = "access"
    REFRESH = "refresh"


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token of ours says."""

    kind: Kind
    user_id: UUID
    login_id: UUID
    expires_at: datetime


class TokenSigner:
    """Claims to token and back."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def sign(self, claims: Claims) -> str:
        """Make a token; two with the same claims still differ."""
        payload = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(claims.user_id),
            "sid": str(claims.login_id),
            "typ": claims.kind.value,
            "jti": secrets.token_urlsafe(16),
            "iat": datetime.now(UTC),
            "exp": claims.expires_at,
        }
        headers = {"kid": self._keys.signing_id}
        return jwt.encode(payload, self._keys.signing_secret, ALGORITHM, headers=headers)

    def read(self, token: str, kind: Kind) -> Claims:
        """Check a token and return what it says.

        Raises:
            NotAuthenticated: it isn't ours, was changed, has expired, or is of the other kind.
        """
        try:
            key_id = jwt.get_unverified_header(token).get("kid", "")
            secret = self._keys.get(key_id)
            if secret is None:
                raise jwt.InvalidKeyError(f"no key {key_id!r}")
            payload = jwt.decode(
                token,
                secret,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=AUDIENCE,
                options={"require": ["iss", "aud", "sub", "exp", "iat", "jti"]},
            )
            claims = Claims(
                kind=Kind(payload["typ"]),
                user_id=UUID(payload["sub"]),
                login_id=UUID(payload["sid"]),
                expires_at=datetime.fromtimestamp(payload["exp"], UTC),
            )
        except jwt.ExpiredSignatureError as error:
            raise NotAuthenticated(f"{kind} token has expired") from error
        except (jwt.PyJWTError, KeyError, ValueError) as error:
            raise NotAuthenticated(f"invalid {kind} token") from error
        if claims.kind is not kind:
            raise NotAuthenticated(f"this is the {claims.kind} token, expected the {kind} token")
        return claims


def hash_of(secret: str) -> str:
    """What is stored of a token or key: 64 hexadecimal characters.

    Plain SHA-256, not argon2: a slow hash protects what people think up, and these are random and
    too long to be guessed. Each request would pay for it; and without salt it can be looked up.
    """
    return hashlib.sha256(secret.encode()).hexdigest()
