"""Answer with generations, whole or while they are made, and stop them when the client goes.

Knows no framing and no dialect.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

from app.contract.generation import Event, Finished, Generation
from app.contract.usage import Timings, Usage
from app.contract.whole import Whole, collect
from app.dialects.kit.connected import while_connected
from app.dialects.kit.framing import EVENT_STREAM, STREAM_HEADERS, Framing
from app.dialects.kit.host import AnyRequest
from app.dialects.kit.pieces import Pieces
from app.errors import Error

logger = logging.getLogger(__name__)

PING_AFTER_S: Final = 10.0
"""Seconds without an event after which a stream that can ping does."""


class Reply:
    """The generations of one request, with the client that waits for them.

    `whole`, `feed` and `stream` close every generation, whatever happens: one of them is called
    right after the generations were started, and what is done before it stands in `guarded`.
    """

    def __init__(self, request: AnyRequest, *generations: Generation) -> None:
        assert generations, "nothing was started"
        self._request = request
        self._generations = generations

    @property
    def model_id(self) -> str:
        """The model that writes."""
        return self._generations[0].model_id

    @property
    def thinks(self) -> bool:
        """Whether the model may think before its answer."""
        return self._generations[0].thinks

    @property
    def digest(self) -> str:
        """SHA-256 of the model's files."""
        return self._generations[0].digest

    def timings(self, index: int) -> Timings | None:
        """How long one of the generations has taken so far."""
        return self._generations[index].timings

    def usage(self, index: int) -> Usage:
        """Tokens that one of the generations has cost so far."""
        return self._generations[index].usage

    def prompt_ids(self, index: int) -> Sequence[int]:
        """Tokens of the prompt of one of the generations."""
        return self._generations[index].prompt_ids

    def token_ids(self, index: int) -> Sequence[int]:
        """Every token of one of the generations so far."""
        return self._generations[index].token_ids

    @asynccontextmanager
    async def guarded(self) -> AsyncIterator[None]:
        """Close every generation if what is inside fails or is cancelled."""
        try:
            yield
        except BaseException:
            await self.aclose()
            raise

    async def whole(self) -> list[Whole]:
        """Wait for the end of all.

        Raises:
            ServerError, ShuttingDown: a generation failed; the error of the first that did.
            ClientGone: the client went first.
        """
        try:
            return await while_connected(self._request.receive, self._wholes())
        finally:
            await self.aclose()

    async def feed(self, take: Callable[[int, Event], object]) -> None:
        """Wait for the end of all, giving each event to a function as it comes.

        Raises:
            ServerError, ShuttingDown: a generation failed; the error of the first that did.
            ClientGone: the client went first.
        """

        async def run() -> None:
            async with aclosing(self._events()) as events:
                async for index, event in events:
                    take(index, event)

        try:
            await while_connected(self._request.receive, run())
        finally:
            await self.aclose()

    async def stream(
        self,
        framing: Framing,
        media_type: str = EVENT_STREAM,
        headers: dict[str, str] | None = None,
        *,
        ping: Callable[[], bytes] | None = None,
        before_end: Callable[[], Awaitable[None]] | None = None,
    ) -> Pieces:
        """Wait for the first event, so that a failure before it is a status, then stream.

        With pings the stream begins after `PING_AFTER_S` in any case, so that nobody on the way
        takes a long prompt for a dead connection.

        Args:
            framing: how the stream is written.
            media_type: of the answer.
            headers: of the answer, beside those that every stream has.
            ping: frames what is sent when nothing has happened for a while; None: nothing is.
            before_end: called when a generation's end has been framed, before that is sent.

        Raises:
            Error: a generation failed before the first event of any.
            ClientGone: the client went before it.
        """
        chunks = self._chunks(framing, ping, before_end)
        async with self.guarded():
            first = await while_connected(self._request.receive, anext(chunks))
        return Pieces(
            chunks,
            media_type,
            first=first,
            headers={**STREAM_HEADERS, **(headers or {})},
            close=self.aclose,
            note_gone=lambda: logger.info("client_gone model=%s", self.model_id),
        )

    async def aclose(self) -> None:
        """End every generation; harmless when repeated."""
        for generation in self._generations:
            await generation.aclose()

    async def _events(self) -> AsyncGenerator[tuple[int, Event], None]:
        """Yield what happens to each generation: its index and the event, in order of time.

        Raises:
            ServerError, ShuttingDown: a generation failed; the error of the first that did.
        """
        if len(self._generations) == 1:
            async for event in self._generations[0]:
                yield 0, event
            return
        queue: asyncio.Queue[tuple[int, Event | Exception]] = asyncio.Queue()
        tasks = [
            asyncio.create_task(_pump(index, generation, queue))
            for index, generation in enumerate(self._generations)
        ]
        running = len(tasks)
        try:
            while running:
                index, news = await queue.get()
                if isinstance(news, Exception):
                    raise news
                if isinstance(news, Finished):
                    running -= 1
                yield index, news
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _wholes(self) -> list[Whole]:
        if len(self._generations) == 1:
            return [await collect(self._generations[0])]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(collect(one)) for one in self._generations]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def _chunks(
        self,
        framing: Framing,
        ping: Callable[[], bytes] | None,
        before_end: Callable[[], Awaitable[None]] | None,
    ) -> AsyncGenerator[bytes, None]:
        async def framed(news: tuple[int, Event] | None) -> bytes:
            if news is None:
                assert ping is not None, "without pings there is no news of none"
                return ping()
            chunk = framing.take(*news)
            if before_end is not None and isinstance(news[1], Finished):
                await before_end()
            return chunk

        source = self._events() if ping is None else _or_none(self._events(), PING_AFTER_S)
        async with aclosing(source) as events:
            yield await framed(await anext(events))  # a failure before this is a status
            try:
                async for news in events:
                    if chunk := await framed(news):
                        yield chunk
            except Error as error:
                logger.warning("stream_failed code=%s message=%s", error.code, error)
                await self.aclose()  # nobody reads the others any more
                yield framing.fail(error)
            else:
                yield framing.finish()


async def _or_none(
    events: AsyncGenerator[tuple[int, Event], None], after_s: float
) -> AsyncGenerator[tuple[int, Event] | None, None]:
    """Yield the events, and None whenever none has come for some seconds."""
    pending: asyncio.Task[tuple[int, Event]] | None = None
    try:
        while True:
            pending = pending or asyncio.create_task(_next(events))
            # not wait_for: it would cancel the event that is on its way
            done, _ = await asyncio.wait({pending}, timeout=after_s)
            if not done:
                yield None
                continue
            try:
                news = pending.result()
            except StopAsyncIteration:
                return
            finally:
                pending = None
            yield news
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
        await events.aclose()


async def _next(events: AsyncGenerator[tuple[int, Event], None]) -> tuple[int, Event]:
    return await anext(events)


async def _pump(
    index: int, generation: Generation, queue: asyncio.Queue[tuple[int, Event | Exception]]
) -> None:
    try:
        async for event in generation:
            queue.put_nowait((index, event))
    except Exception as error:  # noqa: BLE001 # raised where the queue is read
        queue.put_nowait((index, error))
