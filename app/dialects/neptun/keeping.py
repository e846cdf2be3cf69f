"""Keep the turns of chats: a generation is written down when it ends, however it ends.

Knows no framing.
"""

import asyncio
from typing import Self
from uuid import UUID

from app.contract.followed import Followed
from app.contract.generation import Event, Finished, Generation, TextDelta
from app.errors import Error
from app.storage.chats import Quota, Turn, check_room, keep_turn
from app.storage.database import Database


class ChatKeeper:
    """Writes turns, and sees to it that none is lost when its request is cancelled."""

    def __init__(self, database: Database, quota: Quota) -> None:
        self.database = database
        self.quota = quota
        self._writing: set[asyncio.Task[None]] = set()

    async def check_room(self, user_id: UUID, chat_id: str, question: str) -> None:
        """Refuse a turn that can't be kept, before its reply is made.

        Raises:
            ChatsFull: the user's chats are as many, or as large, as anybody's may be.
        """
        async with self.database.read(str(user_id)) as session:
            await check_room(session, user_id, chat_id, question, self.quota)

    async def keep(self, user_id: UUID, chat_id: str, turn: Turn) -> None:
        """Put a turn on disk. When the caller is cancelled meanwhile, writing goes on."""
        task = asyncio.create_task(self._write(user_id, chat_id, turn))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        await asyncio.shield(task)

    async def finish(self) -> None:
        """Wait for what is being written; call it before the database closes."""
        await asyncio.gather(*self._writing)

    async def _write(self, user_id: UUID, chat_id: str, turn: Turn) -> None:
        async with self.database.write(str(user_id)) as session:
            await keep_turn(session, user_id, chat_id, turn)


class KeptGeneration(Followed[Generation]):
    """A generation whose question and reply are kept.

    A whole reply is on disk before its end is sent. One that broke off is kept as incomplete,
    with what there was of it; one that never began is not kept.
    """

    def __init__(
        self,
        generation: Generation,
        keeper: ChatKeeper,
        *,
        user_id: UUID,
        chat_id: str,
        question: str,
    ) -> None:
        super().__init__(generation)
        self._keeper = keeper
        self._user_id = user_id
        self._chat_id = chat_id
        self._question = question
        self._pieces: list[str] = []
        self._kept = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event.

        Raises:
            Error: the generation failed; what there was is kept.
        """
        try:
            event = await anext(self._generation)
        except Error:
            await self._keep(complete=False)
            raise
        if isinstance(event, TextDelta):
            self._pieces.append(event.text)
        elif isinstance(event, Finished):
            await self._keep(complete=True)
        return event

    async def aclose(self) -> None:
        """End it; harmless when repeated."""
        await self._generation.aclose()
        await self._keep(complete=False)

    async def _keep(self, *, complete: bool) -> None:
        if self._kept or not (complete or self._pieces):
            return
        self._kept = True
        turn = Turn(
            question=self._question,
            reply="".join(self._pieces),
            model_id=self.model_id,
            complete=complete,
        )
        await self._keeper.keep(self._user_id, self._chat_id, turn)
