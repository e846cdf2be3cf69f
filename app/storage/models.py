"""The tables, as classes. How they came to be is in migrations/; a test compares the two.

Knows nothing of who may see a row: every query that serves a user names that user.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid4

from advanced_alchemy.base import DefaultBase
from advanced_alchemy.mixins import AuditColumns
from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

NAME_CHARACTERS: Final = 64
KEY_NAME_CHARACTERS: Final = 64
CHAT_ID_CHARACTERS: Final = 128
TITLE_CHARACTERS: Final = 200
MODEL_ID_CHARACTERS: Final = 256


class Role(StrEnum):
    """What a user may do."""

    USER = "user"
    ADMIN = "admin"


class User(DefaultBase, AuditColumns):
    """Somebody with a password."""

    __tablename__ = "users"

    # Random, never reused: a token of a deleted user can't become somebody else's.
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    username: Mapped[str] = mapped_column(String(NAME_CHARACTERS))
    """As it was registered."""
    username_key: Mapped[str] = mapped_column(String(4 * NAME_CHARACTERS), unique=True)
    """Case-folded: names that differ only in case are one name. Folding lengthens some."""
    password_hash: Mapped[str] = mapped_column(String(256))
    """argon2id, with its parameters and salt."""
    role: Mapped[str] = mapped_column(String(16), default=Role.USER)


class Login(DefaultBase):
    """One sign-in: the family of everything that was issued from it.

    Tokens carry its id. A login that isn't there is over, and so are its tokens.
    """

    __tablename__ = "logins"
    __table_args__ = (Index("ix_logins_expires_at", "expires_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    refresh_hash: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the newest refresh token; an older one that comes back was stolen."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class ApiKey(DefaultBase):
    """What is kept of a secret that a user's programs send. One that isn't there is revoked."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(KEY_NAME_CHARACTERS))
    """What the user calls it; two keys may share a name."""
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the secret."""
    ending: Mapped[str] = mapped_column(String(4))
    """The secret's last characters, by which its owner tells keys apart."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    """None: it never does."""
    last_used_at: Mapped[datetime | None]
    """Written at most once per minute, so it may lag behind by that much."""


class KnownAddress(DefaultBase):
    """The hash of an address from which a user has signed in.

    Strangers who try passwords elsewhere don't keep the user out there.
    """

    __tablename__ = "known_addresses"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    address_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    seen_at: Mapped[datetime]
    """When a login began there, the last time."""


class Chat(DefaultBase, AuditColumns):
    """A conversation of one user. The client chose `chat_id`; another user's is another chat."""

    __tablename__ = "chats"
    __table_args__ = (
        UniqueConstraint("user_id", "chat_id"),
        Index("ix_chats_user_id_updated_at", "user_id", "updated_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    chat_id: Mapped[str] = mapped_column(String(CHAT_ID_CHARACTERS))
    title: Mapped[str] = mapped_column(String(TITLE_CHARACTERS))
    num_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Bytes that it counts for in the quota: its document, and its messages as `chats.bytes_of`
    says."""
    document: Mapped[str | None]
    """What a client keeps of it beside the messages, which nobody here reads; None: nothing."""


class Message(DefaultBase):
    """One turn of a chat, in the order of `id`."""

    __tablename__ = "messages"

    # SQLite numbers a row by itself only where the type is exactly INTEGER.
    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True
    )
    chat: Mapped[UUID] = mapped_column(ForeignKey("chats.id", ondelete="CASCADE"), index=True)
    role: Mapped[str] = mapped_column(String(16))
    content: Mapped[str]
    model_id: Mapped[str | None] = mapped_column(String(MODEL_ID_CHARACTERS))
    """The model that wrote it; None: the user did."""
    complete: Mapped[bool]
    """False: the reply broke off here."""
    created_at: Mapped[datetime]
