"""The choices of one request: several generations, answered whole or as one stream.

Knows no JSON and no endpoint.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from litestar import Request, Response

from app.contract.generation import Event, Finished, Whole
from app.dialects import sse
from app.dialects.streaming import stream_chunks
from app.errors import Error
from app.generation.generation import Generation

logger = logging.getLogger(__name__)


class Framing(Protocol):
    """How an endpoint writes a stream of choices."""

    def take(self, index: int, event: Event) -> bytes:
        """Frame what happened to a choice; may return nothing."""

    def finish(self) -> bytes:
        """Frame the end, after every choice's `Finished`."""

    def fail(self, error: Error) -> bytes:
        """Frame a failure, after which nothing comes."""


class Choices:
    """Generations that belong together. Whoever holds them calls `aclose` or runs them out."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        self._generations = generations

    @property
    def model_id(self) -> str:
        """Which model writes."""
        return self._generations[0].model_id

    async def aclose(self) -> None:
        """End them all; harmless when repeated."""
        for generation in self._generations:
            await generation.aclose()

    async def whole(self) -> list[Whole]:
        """Wait for the end of all; when one fails the others are closed.

        Raises:
            ServerError, ShuttingDown: the first failure.
        """
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one.collect()) for one in self._generations]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def events(self) -> AsyncGenerator[tuple[int, Event], None]:
        """Yield what happens to each (its index, the event), in the order in which it does.

        Raises:
            ServerError, ShuttingDown: the first failure.
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
        try:
            running = len(tasks)
            while running:
                index, news = await queue.get()
                if isinstance(news, Exception):
                    raise news
                running -= isinstance(news, Finished)
                yield index, news
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stream(self, request: Request[Any, Any, Any], framing: Framing) -> Response[Any]:
        """Answer with server-sent events.

        Raises:
            Error: a generation failed before the first event of any.
            ClientGone: the client went before it.
        """
        chunks = self._chunks(framing)
        return await stream_chunks(request, self, chunks, sse.MEDIA_TYPE, sse.HEADERS)

    async def _chunks(self, framing: Framing) -> AsyncGenerator[bytes, None]:
        async with aclosing(self.events()) as events:
            yield framing.take(*await anext(events))  # a failure before this is a status
            try:
                async for index, event in events:
                    if chunk := framing.take(index, event):
                        yield chunk
            except Error as error:
                logger.warning("stream_failed code=%s message=%s", error.code, error.message)
                await self.aclose()  # the others are nobody's
                yield framing.fail(error)
            else:
                yield framing.finish()


async def _pump(
    index: int, generation: Generation, queue: asyncio.Queue[tuple[int, Event | Exception]]
) -> None:
    try:
        async for event in generation:
            queue.put_nowait((index, event))
    except Exception as error:  # noqa: BLE001 # raised where the queue is read
        queue.put_nowait((index, error))
