"""What LLM Host's clients send and get."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from app.auth.accounts import NAME_RULE, PASSWORD_CHARACTERS
from app.storage.models import NAME_CHARACTERS, Role

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


class Query(msgspec.Struct, frozen=True):
    """Body of `POST /generate`."""

    query: Annotated[str, Meta(min_length=1, examples=["What is the capital of France?"])]


class Content(msgspec.Struct, frozen=True):
    """Answer of `POST /generate`, whole or one piece of a stream."""

    content: str


class Failure(msgspec.Struct, frozen=True):
    """What ends a stream that failed."""

    error: str


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


class Done(msgspec.Struct, frozen=True):
    """Answer where there is nothing else to say."""

    message: str


class Detail(msgspec.Struct, frozen=True):
    """Every refusal."""

    detail: str
