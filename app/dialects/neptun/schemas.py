"""What Neptun's clients send and get."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

import msgspec
from msgspec import Meta

from app.errors import InvalidParameter
from app.storage import models
from app.storage.models import TITLE_CHARACTERS

# In the schema only: `check` says it in words.
Content = Annotated[
    str, Meta(extra_json_schema={"pattern": r"\S"}, examples=["Hello, how are you?"])
]


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    content: Content


class ChatRequest(msgspec.Struct, frozen=True):
    """Body of the chat route: the whole conversation; what is stored is not added to it."""

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
    """The server's; `/api/chats/<id>` takes it as well as `chat_id`, which may hold a slash."""
    chat_id: str
    title: str
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, chat: models.Chat) -> Self:
        """As it is stored."""
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


class StoredChat(msgspec.Struct, frozen=True):
    """Answer of `GET /api/chats/{chat_id}`."""

    chat: ChatSummary
    messages: list[StoredMessage]

    @classmethod
    def of(cls, chat: models.Chat, messages: Sequence[models.Message]) -> Self:
        """As it is stored."""
        return cls(
            ChatSummary.of(chat),
            [
                StoredMessage(
                    role="user" if message.role == "user" else "assistant",
                    content=message.content,
                    model=message.model_id,
                    complete=message.complete,
                    created_at=message.created_at,
                )
                for message in messages
            ],
        )


class Renaming(msgspec.Struct, frozen=True):
    """Body of `PATCH /api/chats/{chat_id}`."""

    title: Annotated[str, Meta(min_length=1, max_length=TITLE_CHARACTERS)]
