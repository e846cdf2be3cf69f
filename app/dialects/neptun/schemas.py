"""What Neptun's clients send and are answered."""

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.errors import InvalidParameter
from app.storage import models
from app.storage.chats import Said
from app.storage.models import CHAT_ID_CHARACTERS, MODEL_ID_CHARACTERS, TITLE_CHARACTERS

# In the schema only: `check` says it in words.
Content = Annotated[
    str, Meta(extra_json_schema={"pattern": r"\S"}, examples=["Hello, how are you?"])
]


class ChatQuery(msgspec.Struct, frozen=True):
    """Query of the chat route."""

    chat_id: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=CHAT_ID_CHARACTERS,
            description="The client's name for the chat; `-1`: keep nothing",
            extra_json_schema={"pattern": r"^[^\x00]*$"},  # `check` says it in words
        ),
    ]
    stream_protocol: Annotated[
        Literal["text", "data"] | UnsetType,
        Meta(description="`data`: the AI SDK's data stream v1; without it, `Accept` decides"),
    ] = UNSET

    def check(self) -> None:
        """Refuse what the types can't say.

        Raises:
            InvalidParameter: the chat's name holds NUL, which no database can hold in a text.
        """
        if "\0" in self.chat_id:
            raise InvalidParameter("chat_id", self.chat_id, "a text without NUL")


class Page(msgspec.Struct, frozen=True):
    """Query of `GET /api/chats`."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: Content


class ChatRequest(msgspec.Struct, frozen=True):
    """Body of the chat route: the whole conversation. Nothing that is stored is added to it."""

    messages: Annotated[list[Message], Meta(min_length=1)]

    def check(self) -> None:
        """Refuse what the types can't say.

        Raises:
            InvalidParameter: a content is nothing but white space.
        """
        for index, message in enumerate(self.messages):
            if not message.content.strip():
                raise InvalidParameter(
                    f"messages[{index}].content", message.content, "more than white space"
                )

    @property
    def question(self) -> str:
        """The user's last message; empty: there is none."""
        questions = [message.content for message in self.messages if message.role == "user"]
        return questions[-1] if questions else ""


class Refusal(msgspec.Struct, frozen=True, rename="camel"):
    """Every answer that is not a success."""

    status_code: int
    status_message: str


class ChatSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A stored chat without its messages."""

    id: UUID
    """The server's own; `/api/chats/<id>` takes it as well as `chat_id`, which may hold a slash."""
    chat_id: str
    title: str
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, chat: models.Chat) -> Self:
        """Make it from what is stored."""
        return cls(
            id=chat.id,
            chat_id=chat.chat_id,
            title=chat.title,
            created_at=chat.created_at,
            updated_at=chat.updated_at,
        )


class ChatList(msgspec.Struct, frozen=True):
    """Answer of `GET /api/chats`."""

    chats: list[ChatSummary]


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One turn as it was kept."""

    role: Literal["user", "assistant"]
    content: str
    model: str | None
    complete: bool
    """False: the reply broke off here."""
    created_at: datetime

    @classmethod
    def of(cls, message: models.Message) -> Self:
        """Make it from what is stored."""
        return cls(
            role="user" if message.role == "user" else "assistant",
            content=message.content,
            model=message.model_id,
            complete=message.complete,
            created_at=message.created_at,
        )


Document = Annotated[
    str | None,
    Meta(
        description="What a client keeps beside the messages; read by nobody else, and dropped "
        "when the chat route keeps a turn"
    ),
]
Title = Annotated[str, Meta(min_length=1, max_length=TITLE_CHARACTERS)]


class StoredChat(msgspec.Struct, frozen=True):
    """Answer of `GET /api/chats/{chat_id}`; written piece by piece, see `routes.read_chat`."""

    chat: ChatSummary
    messages: list[StoredMessage]
    document: Document = None


class KeptMessage(msgspec.Struct, frozen=True):
    """One turn of a chat that a client keeps."""

    role: Literal["user", "assistant"]
    content: str
    model: Annotated[str, Meta(max_length=MODEL_ID_CHARACTERS)] | None = None
    complete: bool = True

    def to_said(self) -> Said:
        """Make what is stored."""
        return Said(
            role=self.role,
            content=self.content,
            model_id=self.model and self.model.replace("\0", "\ufffd"),
            complete=self.complete,
        )


class KeptChat(msgspec.Struct, frozen=True):
    """Body of `PUT /api/chats/{chat_id}`."""

    title: Title
    messages: list[KeptMessage]
    document: Document = None


class Renaming(msgspec.Struct, frozen=True):
    """Body of `PATCH /api/chats/{chat_id}`."""

    title: Title
