"""Run batches behind everything else, and go on with them after a restart.

Each user's batches run one after the other, and users take turns line by line. A line's answer is
on disk before the next one takes its place, so that a process that ends loses only what it was
asking. Knows no routes.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
from litestar import Litestar

from app.auth.logins import Principal
from app.dialects.openai.batches.asking import ask
from app.dialects.openai.batches.input import lines_of, read_line
from app.dialects.openai.batches.records import batch_error, error_line, told_line
from app.dialects.openai.batches.results import end_batch, expire_lines, noted_line
from app.dialects.openai.batches.room import Room
from app.errors import NotKept
from app.settings import Settings
from app.storage import batches, files
from app.storage.database import Database, DatabaseFailure
from app.storage.models import Batch, BatchLine, Role, StoredFile
from app.storage.sweeping import Sweep, Sweeper

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 10.0
"""How often to look for batches that another process left; a part of `batches.HOLD`."""
NOTED_AT_ONCE: Final = 500
READ_AT_ONCE: Final = 20
LATER: Final = (429, 503)
"""Statuses of those who are to come again."""
BLANKS: Final = 2
"""How many times as many lines a file may have as requests: the others are empty."""
FULL: Final = "your files and the answers of this batch fill what is kept: delete some files"
MAX_ERRORS: Final = 100
"""Errors that a batch tells of its input."""


class BatchRunner:
    """Runs the batches of a server's users."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._holder = uuid4()
        self._places = asyncio.Semaphore(settings.batch_lines_at_once)
        self._turn = asyncio.Lock()
        """To read a line: one user's may take some milliseconds, and others' may not add up."""
        self._serving: dict[UUID, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._application: Litestar | None = None
        self._sweeper = Sweeper(database, *self._sweeps())

    def start(self, application: Litestar) -> None:
        """Go on with what is there; lines are asked of the application."""
        self._application = application
        self._sweeper.start()
        if self._settings.batch_lines_at_once:
            self._watching = asyncio.create_task(self._watch())

    def wake(self) -> None:
        """Look for a new batch now."""
        self._news.set()

    async def close(self) -> None:
        """Stop; lines that are being asked will be asked again by whoever goes on."""
        await self._sweeper.close()
        tasks = [*self._serving.values(), *([self._watching] if self._watching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if tasks:
            async with self._database.write() as session:
                await batches.let_go(session, self._holder)

    def _sweeps(self) -> list[Sweep]:
        life = timedelta(days=self._settings.file_days)

        async def delete_old(session: Any) -> int:
            return await batches.delete_old_batches(session, datetime.now(UTC) - life)

        async def delete_expired(session: Any) -> int:
            return await files.delete_expired_files(session, batches.files_being_read())

        return [delete_expired, *([delete_old] if life else [])]

    async def _watch(self) -> None:
        while True:
            self._news.clear()
            try:
                async with self._database.write() as session:
                    await batches.hold(session, self._holder)
                    users = await batches.users_with_work(session)
            except DatabaseFailure:
                logger.exception("batches_unknown")
                users = []
            for user_id in users:
                if user_id not in self._serving:
                    task = asyncio.create_task(self._serve(user_id))
                    self._serving[user_id] = task
                    task.add_done_callback(partial(self._served, user_id))
            # not wait_for: with Python 3.11 it swallows a cancellation that comes with the news
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._news.wait()

    def _served(self, user_id: UUID, task: asyncio.Task[None]) -> None:
        del self._serving[user_id]
        if not task.cancelled() and task.exception() is None:
            self._news.set()  # a batch may have come in between

    async def _serve(self, user_id: UUID) -> None:
        """Run a user's batches until none is left."""
        try:
            while True:
                async with self._database.write() as session:
                    batch = await batches.claim(session, user_id, self._holder)
                if batch is None:
                    return
                await self._run(batch)
        except DatabaseFailure:
            logger.exception("batch_stopped user=%s", user_id)  # begun again at the next look

    async def _run(self, batch: Batch) -> None:
        """Take a batch as far as it goes."""
        logger.info("batch_run batch=%s status=%s", batches.name_of(batch.id), batch.status)
        try:
            if batch.status == "cancelling":
                await self._end(batch, "cancelled")
                return
            async with self._database.read(str(batch.user_id)) as session:
                user_id, file_id = batch.user_id, batch.input_file
                file = await files.find_file(session, user_id, file_id, expired=True)
                owner = await batches.owner_of(session, batch)
            if owner is None:
                return
            if batch.status == "validating" and not await self._validated(batch, file):
                return
            if batch.status == "in_progress":
                user = Principal(user_id=owner.id, username=owner.username, role=Role(owner.role))
                await self._ask_all(batch, file, user)
            await self._finish(batch)
        except NotKept as error:
            await self._fail(batch, [batch_error("invalid_input_file", error.message)])
        except DatabaseFailure:
            raise
        except Exception:
            logger.exception("batch_failed batch=%s", batches.name_of(batch.id))
            await self._fail(batch, [batch_error("server_error", "the batch could not be run")])

    async def _validated(self, batch: Batch, file: StoredFile) -> bool:
        """Note where the lines of the input are, and those that can't be asked.

        Returns:
            Whether there is anything to ask.
        """
        settings = self._settings
        most, max_bytes = settings.batch_max_lines, settings.max_body_bytes
        async with self._database.write(str(batch.user_id)) as session:
            await batches.forget_lines(session, batch)
        seen: set[bytes] = set()
        noted: list[batches.Line] = []
        wrong: list[msgspec.Raw] = []
        total = num_wrong = 0
        async for raw in lines_of(files.pieces_of(self._database, file), max_bytes):
            total += not raw.blank
            if total > most or raw.number >= BLANKS * most:
                message = f"the file has more than {most} lines, or too many that are empty"
                await self._fail(batch, [batch_error("too_many_requests", message)])
                return False
            async with self._turn:
                await asyncio.sleep(0)  # others on the event loop
                if raw.blank:
                    continue
                line, error = await noted_line(raw, batch.endpoint, settings, seen)
            noted.append(line)
            if error is not None:
                num_wrong += 1
                if len(wrong) < MAX_ERRORS:
                    wrong.append(error)
            if len(noted) >= NOTED_AT_ONCE:
                await self._note(batch, noted)
        await self._note(batch, noted)
        if not total:
            await self._fail(batch, [batch_error("empty_file", "the file has no lines")])
        elif num_wrong == total:
            await self._fail(batch, wrong)
        else:
            return await self._move(batch, "in_progress", total=total, failed=num_wrong)
        return False

    async def _note(self, batch: Batch, noted: list[batches.Line]) -> None:
        if noted:
            async with self._database.write(str(batch.user_id)) as session:
                await batches.add_lines(session, batch, noted)
            noted.clear()

    async def _ask_all(self, batch: Batch, file: StoredFile, user: Principal) -> None:
        """Ask what has no answer yet, until the batch is over."""
        room = Room(self._database, self._settings, batch)
        mine = asyncio.Semaphore(self._settings.batch_lines_at_once)
        try:
            async with asyncio.TaskGroup() as group:
                async for line in self._open_lines(batch):
                    await mine.acquire()
                    if await self._over(batch):
                        return
                    task = group.create_task(self._ask(batch, file, user, line, room))
                    task.add_done_callback(lambda _: mine.release())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures

    async def _open_lines(self, batch: Batch) -> AsyncGenerator[BatchLine, None]:
        after = -1
        while True:
            async with self._database.read(str(batch.user_id)) as session:
                some = await batches.open_lines(session, batch, after, READ_AT_ONCE)
            if not some:
                return
            for line in some:
                yield line
            after = some[-1].number

    async def _ask(
        self, batch: Batch, file: StoredFile, user: Principal, line: BatchLine, room: Room
    ) -> None:
        """Ask one line when there is a place, and write down its answer.

        One that is to come again leaves its place to others: what it asks for may have to wait
        until nobody else is served. It is read anew then, so that what waits fills no memory.
        """
        assert self._application is not None, "it was started"
        while True:
            async with self._places:
                if await self._over(batch):
                    return
                if await room.full():
                    outcome = error_line(line.custom_id, "quota_full", FULL)
                    await self._answer(batch, line.number, outcome, good=False)
                    return
                text = await files.part_of(self._database, file, line.start, line.length)
                asked = read_line(text, batch.endpoint, self._settings.max_body_bytes)
                told = await ask(self._application, user, batch.endpoint, bytes(asked.body))
                if told.status not in LATER:
                    outcome = told_line(asked.custom_id, told)
                    await self._answer(batch, line.number, outcome, good=told.status < 400)
                    room.add(outcome)
                    return
                del text, asked
            await asyncio.sleep(float(told.headers.get("retry-after", "1")))

    async def _answer(self, batch: Batch, number: int, outcome: str, *, good: bool) -> None:
        async with self._database.write(str(batch.user_id)) as session:
            await batches.answer_line(session, batch, number, outcome, good=good)

    async def _over(self, batch: Batch) -> bool:
        """Whether nothing more is to be asked: the batch was cancelled or has expired."""
        if datetime.now(UTC) >= batch.expires_at:
            return True
        async with self._database.read(str(batch.user_id)) as session:
            return not await batches.is_running(session, batch)

    async def _finish(self, batch: Batch) -> None:
        """End a batch whose lines were all answered, or that has expired."""
        async with self._database.read(str(batch.user_id)) as session:
            left = await batches.open_lines(session, batch, -1, 1)
        if not left:
            if batch.status == "finalizing" or await self._move(batch, "finalizing"):
                await self._end(batch, "completed")
        elif datetime.now(UTC) >= batch.expires_at:
            await expire_lines(self._database, batch)
            await self._end(batch, "expired")

    async def _end(self, batch: Batch, status: str) -> None:
        """Write the files of results, then the last status."""
        life = timedelta(days=self._settings.file_days)
        if await end_batch(self._database, batch, status, life):
            logger.info("batch_ended batch=%s status=%s", batches.name_of(batch.id), batch.status)

    async def _fail(self, batch: Batch, errors: list[msgspec.Raw]) -> None:
        told = msgspec.json.encode(errors).decode()
        async with self._database.write(str(batch.user_id)) as session:
            if await batches.move(session, batch, "failed", errors=told):
                await batches.forget_lines(session, batch)

    async def _move(self, batch: Batch, status: str, **values: Any) -> bool:
        async with self._database.write(str(batch.user_id)) as session:
            return await batches.move(session, batch, status, **values)
