"""What is sent and answered about accounts and API keys."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

import msgspec
from msgspec import Meta

from app.auth import api_keys
from app.auth.accounts import NAME_RULE, PASSWORD_CHARACTERS
from app.storage.models import KEY_NAME_CHARACTERS, NAME_CHARACTERS, ApiKey, Role

# In the schema only: a message about a limit carries the value, and a password is no such value.
_PASSWORD_LIMITS = {
    "minLength": PASSWORD_CHARACTERS.start,
    "maxLength": PASSWORD_CHARACTERS.stop - 1,
    "format": "password",
}

Name = Annotated[
    str, Meta(max_length=NAME_CHARACTERS, description=NAME_RULE, examples=["testuser"])
]
NewPassword = Annotated[str, Meta(extra_json_schema=_PASSWORD_LIMITS, examples=["testpassword"])]
Password = Annotated[str, Meta(extra_json_schema={"format": "password"})]
KeyName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=KEY_NAME_CHARACTERS,
        description=api_keys.NAME_RULE,
        examples=["laptop"],
    ),
]
KeyLife = Annotated[int, Meta(ge=api_keys.LIFE_DAYS.start, le=api_keys.LIFE_DAYS.stop - 1)]


class Registration(msgspec.Struct, frozen=True):
    """Body of `POST /register`."""

    username: Name
    password: NewPassword


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `POST /register`."""

    message: str = "User registered successfully"
    user: str


class Credentials(msgspec.Struct, frozen=True):
    """Form of `POST /login`."""

    username: str
    password: Password


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `POST /login` and `POST /refresh`."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 # a kind of token
    refresh_token: str


class RefreshToken(msgspec.Struct, frozen=True):
    """Body of `POST /refresh`."""

    refresh_token: str


class Me(msgspec.Struct, frozen=True):
    """Answer of `GET /me`."""

    id: UUID
    username: str
    role: Role


class NewPasswordRequest(msgspec.Struct, frozen=True):
    """Body of `POST /me/password`."""

    current_password: Password
    new_password: NewPassword


class PasswordProof(msgspec.Struct, frozen=True):
    """Body of `POST /me/delete`."""

    password: Password


class NewApiKeyRequest(msgspec.Struct, frozen=True):
    """Body of `POST /me/keys`."""

    name: KeyName
    expires_in_days: KeyLife | None = None
    """None: it never expires by itself."""


class KeptApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an API key after it was shown."""

    id: UUID
    name: str
    ending: str
    """The key's last characters, to tell it from others."""
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    """Written at most once per minute."""

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        """Make it from what is stored."""
        return cls(
            id=key.id,
            name=key.name,
            ending=key.ending,
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
        )


class NewApiKey(KeptApiKey, frozen=True, kw_only=True):
    """Answer of `POST /me/keys`."""

    key: str
    """The secret itself: it is shown here and never again."""


class ApiKeyList(msgspec.Struct, frozen=True):
    """Answer of `GET /me/keys`."""

    keys: list[KeptApiKey]


class Done(msgspec.Struct, frozen=True):
    """Answer where there is nothing else to say."""

    message: str
