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
FILE_NAME_CHARACTERS: Final = 255


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


class StoredResponse(DefaultBase):
    """An answer of OpenAI's Responses, and what a response that goes on from it reads."""

    __tablename__ = "responses"
    __table_args__ = (
        Index("ix_responses_user_id_num_bytes", "user_id", "num_bytes"),
        Index("ix_responses_thread_created_at", "thread", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """Its hexadecimal digits are in the id that clients know."""
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    previous: Mapped[UUID | None]
    """The response that it goes on from, which may have been deleted since; None: from none."""
    thread: Mapped[UUID]
    """The first response of its conversation: all of them expire together."""
    created_at: Mapped[datetime]
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    """Bytes that it counts for in the quota."""
    item_bytes: Mapped[int] = mapped_column(BigInteger)
    """UTF-8 bytes of `items`."""
    num_input: Mapped[int]
    """How many of `items` were sent; the others were answered."""
    items: Mapped[str]
    """JSON array: what this request added to the conversation, then what was answered."""
    answer: Mapped[str]
    """JSON object: the answer as it was given."""


class StoredFile(DefaultBase):
    """A file of one user, whose bytes are in pieces."""

    __tablename__ = "files"
    __table_args__ = (Index("ix_files_user_id_created_at", "user_id", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    filename: Mapped[str] = mapped_column(String(FILE_NAME_CHARACTERS))
    purpose: Mapped[str] = mapped_column(String(16))
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    """None: it never does."""
    whole: Mapped[bool]
    """False: it is being written, and nobody sees it."""


class FilePiece(DefaultBase):
    """A part of a file; all but the last are of one size."""

    __tablename__ = "file_pieces"

    file: Mapped[UUID] = mapped_column(ForeignKey("files.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class Batch(DefaultBase):
    """Requests of a file that are answered when nobody else waits."""

    __tablename__ = "batches"
    __table_args__ = (
        Index("ix_batches_user_id_created_at", "user_id", "created_at"),
        Index("ix_batches_status", "status"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    input_file: Mapped[UUID]
    """May have been deleted, once the batch has ended."""
    endpoint: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    times: Mapped[str]
    """JSON object: when it came to each status."""
    labels: Mapped[str]
    """JSON object: what its client attached to it."""
    errors: Mapped[str | None]
    """JSON array: why it failed."""
    output_file: Mapped[UUID | None]
    error_file: Mapped[UUID | None]
    total: Mapped[int]
    completed: Mapped[int]
    failed: Mapped[int]
    holder: Mapped[UUID | None]
    """The process that works on it."""
    held_until: Mapped[datetime | None]
    """When another process may go on with it, unless the holder says again that it works."""


class BatchLine(DefaultBase):
    """A line of a batch's input; gone when the batch has ended."""

    __tablename__ = "batch_lines"

    batch: Mapped[UUID] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger)
    """Where it begins in the file, in bytes."""
    length: Mapped[int] = mapped_column(BigInteger)
    custom_id: Mapped[str | None] = mapped_column(String(512))
    good: Mapped[bool | None]
    """Whether it was answered with success; None: not yet."""
    outcome: Mapped[str | None]
    """The line of the file of results; None: there is none yet."""
