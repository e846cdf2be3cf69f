"""Keep responses for users who signed in, and read the conversations that they make.

Knows no routes, and nothing of how a response comes about.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from app.dialects.kit.body_size import num_values
from app.dialects.kit.passed_over import PassedOver
from app.dialects.openai.ids import id_of, new_id
from app.dialects.openai.responses.items import Item
from app.dialects.openai.responses.records import Json, ResponseAnswer
from app.dialects.openai.responses.schemas import ResponseBody
from app.errors import InvalidParameter, NotKept, QuotaFull, UnknownPrevious
from app.settings import Settings
from app.storage import responses
from app.storage.database import Database
from app.storage.models import StoredResponse
from app.storage.responses import Conversation, Quota, delete_expired
from app.storage.sweeping import Sweeper

_KINDS: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}
"""What the ids of items begin with, by their type."""
_ID_CHARACTERS: Final = 64
_ITEMS_AT_ONCE: Final = 200
"""Items that are written as they are listed in one go: some milliseconds."""


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """The conversation that a response goes on from."""

    previous: UUID | None = None
    """None: it begins one."""
    thread: UUID | None = None
    items: Sequence[Item] = ()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a response will be kept."""

    user_id: UUID
    past: Past
    given: str | Sequence[Item]
    """What was sent."""


class ResponseKeeper:
    """Keeps the responses of a server."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._quota = Quota(
            responses=settings.responses_per_user,
            num_bytes=settings.response_mb_per_user * 1_000_000,
        )
        self._life = timedelta(days=settings.response_days)
        self._max_bytes = settings.max_body_bytes
        self._max_values = settings.max_body_values
        self._writing: set[asyncio.Task[None]] = set()
        self._sweeper = Sweeper(database, lambda session: delete_expired(session, self.since))

    def start(self) -> None:
        """Begin to delete what expires."""
        self._sweeper.start()

    @property
    def since(self) -> datetime:
        """The moment since which something must have been added to a conversation that is kept."""
        return datetime.now(UTC) - self._life

    async def past(self, user_id: UUID | None, previous_id: str | None) -> Past:
        """Read the conversation that a request goes on from.

        Args:
            user_id: who asks; None: somebody without an account, for whom nothing is kept.
            previous_id: what the request names; None: nothing.

        Raises:
            UnknownPrevious: it is not kept for this user, or not all of it is.
            InvalidParameter: the conversation is longer than a body may be.
        """
        if previous_id is None:
            return Past()
        previous = _uuid_of(previous_id)
        if user_id is None or previous is None:
            raise UnknownPrevious(previous_id)
        try:
            conversation, texts = await self._read(user_id, previous)
        except NotKept as error:
            raise UnknownPrevious(error.its_id) from error
        raw = _joined(texts)
        if await num_values(raw, self._max_values) > self._max_values:
            limit = f"a conversation of at most {self._max_values} values"
            raise InvalidParameter("previous_response_id", previous_id, limit)
        items = msgspec.json.decode(raw, type=list[Item])
        return Past(previous=previous, thread=conversation.thread, items=items)

    async def place(
        self, user_id: UUID | None, asked: ResponseBody, past: Past, passed: PassedOver
    ) -> Place | None:
        """Say where a response will be kept; None: it will not be.

        OpenAI's clients leave `store` out and mean true: they get an answer in any case, which
        says whether it is kept. Who says true, or goes on from a response, relies on it.

        Raises:
            QuotaFull: there is no room, and the client relies on it.
            Unsupported: nothing is kept for who asks, and the server takes no such thing.
        """
        if asked.store is False:
            return None
        if user_id is None or not self._life:
            if asked.store:
                passed.note("store", True, "responses are kept for users who signed in")
            return None
        num_bytes = len(msgspec.json.encode(asked.input))
        try:
            async with self._database.read(str(user_id)) as session:
                await responses.check_room(session, user_id, num_bytes, self._quota)
        except QuotaFull:
            if asked.store or past.previous is not None:
                raise
            return None
        return Place(user_id=user_id, past=past, given=asked.input)

    async def keep(self, place: Place, answer: ResponseAnswer) -> None:
        """Put a response on disk. When the caller is cancelled meanwhile, writing goes on."""
        task = asyncio.create_task(self._write(place, answer))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        await asyncio.shield(task)

    async def answer(self, user_id: UUID | None, response_id: str) -> bytes:
        """Read a response as it was answered: a JSON object.

        Raises:
            NotKept: this user has no such response, or not any more.
        """
        user, key = _known(user_id, response_id)
        async with self._database.read(str(user)) as session:
            found = await responses.find_response(session, user, key, self.since)
        return found.answer.encode()

    async def input_items(self, user_id: UUID | None, response_id: str) -> list[msgspec.Raw]:
        """Read all that a response was given: the conversation so far and what was sent with it.

        Returns:
            Each item as it was written: a page shows few of them, and reading millions of values
            would hold the event loop.

        Raises:
            NotKept: this user has no such response, or one before it was deleted.
            InvalidParameter: the conversation is longer than a body may be.
        """
        user, key = _known(user_id, response_id)
        conversation, texts = await self._read(user, key)
        parsed = [msgspec.json.decode(text, type=list[msgspec.Raw]) for text in texts]
        parsed[-1] = parsed[-1][: conversation.num_input]
        return [item for items in parsed for item in items]

    async def delete(self, user_id: UUID | None, response_id: str) -> None:
        """Delete a response.

        Raises:
            NotKept: this user has no such response, or not any more.
        """
        user, key = _known(user_id, response_id)
        async with self._database.write(str(user)) as session:
            await responses.delete_response(session, user, key, self.since)

    async def finish(self) -> None:
        """Stop deleting, and wait for what is being written; call it before the database closes."""
        await self._sweeper.close()
        await asyncio.gather(*self._writing)

    async def _read(self, user_id: UUID, response_id: UUID) -> tuple[Conversation, list[str]]:
        async with self._database.read(str(user_id)) as session:
            found = await responses.conversation_to(session, user_id, response_id, self.since)
            if found.num_bytes > self._max_bytes:
                limit = f"a conversation of at most {self._max_bytes} bytes"
                raise InvalidParameter(
                    "previous_response_id", responses.name_of(response_id), limit
                )
            return found, await responses.items_of(session, found.responses)

    async def _write(self, place: Place, answer: ResponseAnswer) -> None:
        response_id = _uuid_of(answer.id)
        assert response_id is not None, answer.id
        # not before: most that would take long is refused by its number of tokens
        items = await _listed(place.given)
        stored = StoredResponse(
            id=response_id,
            user_id=place.user_id,
            previous=place.past.previous,
            thread=place.past.thread or response_id,
            created_at=datetime.now(UTC),
            num_input=len(items),
            items=msgspec.json.encode([*items, *_answered(answer)]).decode(),
            answer=msgspec.json.encode(answer).decode(),
        )
        async with self._database.write(str(place.user_id)) as session:
            await responses.keep_response(session, stored)


def _known(user_id: UUID | None, response_id: str) -> tuple[UUID, UUID]:
    key = _uuid_of(response_id)
    if user_id is None or key is None:
        raise NotKept("response", response_id)
    return user_id, key


def _uuid_of(response_id: str) -> UUID | None:
    return id_of("resp", response_id)


def _joined(arrays: Sequence[str]) -> bytes:
    """Make one JSON array of several."""
    return f"[{','.join(array[1:-1] for array in arrays if array != '[]')}]".encode()


def _answered(answer: ResponseAnswer) -> list[Json]:
    """What was answered, as a later request reads it: nobody reads log probabilities there."""
    items: list[Json] = msgspec.to_builtins(answer.output)
    for item in items:
        for part in item.get("content", ()):
            part.pop("logprobs", None)
    return items


async def _listed(given: str | Sequence[Item]) -> list[Json]:
    """Write the items of an input as OpenAI lists them: each with an id, texts as parts."""
    items = [Item(role="user", content=given)] if isinstance(given, str) else given
    seen: set[str] = set()
    listed = []
    for index, item in enumerate(items, 1):
        if index % _ITEMS_AT_ONCE == 0:
            await asyncio.sleep(0)  # others on the event loop
        written = _without_nulls(msgspec.to_builtins(item))
        item_id = item.id
        if not item_id or item_id in seen or len(item_id) > _ID_CHARACTERS:
            item_id = new_id(_KINDS.get(item.type, "item"))
        seen.add(item_id)
        written |= {"type": item.type, "id": item_id}
        if item.type == "message":
            written |= {"status": item.status or "completed", "content": _parts(item)}
        listed.append(written)
    return listed


def _parts(item: Item) -> list[Json]:
    kind = "output_text" if item.role == "assistant" else "input_text"
    more: Json = {"annotations": []} if kind == "output_text" else {}
    if isinstance(item.content, str):
        return [{"type": kind, "text": item.content, **more}]
    return [_without_nulls(msgspec.to_builtins(part)) for part in item.content or ()]


def _without_nulls(record: dict[str, Any]) -> Json:
    return {name: value for name, value in record.items() if value is not None}
