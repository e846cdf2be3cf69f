"""What the operator's page sends and is answered."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Self
from uuid import UUID

import msgspec

from app.contract.models import ModelFacts, ModelState
from app.dialects.admin.pulls import Pull
from app.recent_errors import LoggedError
from app.storage.models import ApiKey, Role, User


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model on disk, on its way or in memory."""

    model_id: str
    size_bytes: int
    quantisation: str
    context_length: int
    state: Literal["on disk", "loading", "loaded", "failed"]
    progress: float | None = None
    """Of loading, 0 to 1."""
    capacity: int | None = None
    slots: int | None = None
    running: int | None = None
    waiting: int | None = None
    cache_bytes: int | None = None
    provider: str | None = None
    step_age_s: float | None = None
    failure: str | None = None

    @classmethod
    def of(cls, facts: ModelFacts, loaded: ModelState | None, progress: float | None) -> Self:
        """Make it from what is known of a model."""
        row = cls(
            model_id=facts.model_id,
            size_bytes=facts.size_bytes,
            quantisation=facts.quantisation,
            context_length=facts.context_length,
            state="on disk" if progress is None else "loading",
            progress=progress,
        )
        if loaded is None:
            return row
        return msgspec.structs.replace(
            row,
            state="loaded" if loaded.failure is None else "failed",
            progress=None,
            capacity=loaded.capacity,
            slots=loaded.slots,
            running=loaded.running,
            waiting=loaded.waiting,
            cache_bytes=loaded.cache_bytes,
            provider=loaded.provider,
            step_age_s=round(loaded.step_age_s, 3),
            failure=loaded.failure,
        )


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `GET /admin/api/overview`."""

    version: str
    open: bool
    """Whether the server answers without a token."""
    username: str | None
    """Who asks; None: somebody at the machine."""
    administrator: bool
    """Whether who asks may change accounts."""
    models: list[ModelRow]
    pull: Pull | None
    cannot_pull: str | None
    """Why no model can be pulled; None: one can."""
    errors: list[LoggedError]
    """The newest first."""


class PullBody(msgspec.Struct, frozen=True):
    """Body of `POST /admin/api/pull`."""

    name: str
    """`publisher/name` on the Hub."""


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """An API key, without the key."""

    id: UUID
    name: str
    ending: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        """Make it from what is stored."""
        return cls(**{name: getattr(key, name) for name in cls.__struct_fields__})


class UserRow(msgspec.Struct, frozen=True, kw_only=True):
    """A user with their keys."""

    username: str
    role: Role
    keys: list[KeyRow]

    @classmethod
    def of(cls, user: User, keys: Sequence[ApiKey]) -> Self:
        """Make it from what is stored."""
        rows = [KeyRow.of(key) for key in keys]
        return cls(username=user.username, role=Role(user.role), keys=rows)


class Users(msgspec.Struct, frozen=True):
    """Answer of `GET /admin/api/users`."""

    users: list[UserRow]


class RoleBody(msgspec.Struct, frozen=True):
    """Body of `POST /admin/api/users/role`."""

    username: str
    role: Role


class UserBody(msgspec.Struct, frozen=True):
    """Body of `POST /admin/api/users/delete`."""

    username: str


class NewKeyBody(msgspec.Struct, frozen=True):
    """Body of `POST /admin/api/keys/create`."""

    username: str
    name: str
    expires_in_days: int | None = None


class NewKey(msgspec.Struct, frozen=True):
    """Answer of `POST /admin/api/keys/create`."""

    key: str
    """The secret itself: it is shown here and never again."""


class KeyBody(msgspec.Struct, frozen=True):
    """Body of `POST /admin/api/keys/revoke`."""

    username: str
    key_id: str


class Done(msgspec.Struct, frozen=True):
    """Answer where there is nothing else to say."""

    message: str
