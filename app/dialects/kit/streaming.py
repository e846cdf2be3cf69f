"""Answer with generations, whole or while they are made, and stop them when the client goes.

Knows no framing and no dialect.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from litestar.response import Response
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Receive, Scope, Send

from app.contract.generation import Event, Finished, Generation, Whole, collect
from app.dialects.kit.framing import EVENT_STREAM, STREAM_HEADERS, Framing
from app.dialects.kit.host import AnyRequest
from app.errors import Error

logger = logging.getLogger(__name__)
T = TypeVar("T")


class ClientGone(Exception):
    """There is nobody left to answer."""


class Reply:
    """The generations of one request, with the client that waits for them.

    `whole`, `feed` and `stream` close every generation, whatever happens: one of them is called
    right after the generations were started.
    """

    def __init__(self, request: AnyRequest, *generations: Generation) -> None:
        assert generations, "nothing was started"
        self._request = request
        self._generations = generations

    @property
    def model_id(self) -> str:
        """The model that writes."""
        return self._generations[0].model_id

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
    ) -> Response[Any]:
        """Wait for the first event, so that a failure before it is a status, then stream.

        Args:
            framing: how the stream is written.
            media_type: of the answer.
            headers: of the answer, beside those that every stream has.

        Raises:
            Error: a generation failed before the first event of any.
            ClientGone: the client went before it.
        """
        chunks = self._chunks(framing)
        try:
            first = await while_connected(self._request.receive, anext(chunks))
        except BaseException:
            await self.aclose()
            raise
        return _Stream(self, first, chunks, media_type, {**STREAM_HEADERS, **(headers or {})})

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

    async def _chunks(self, framing: Framing) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._events()) as events:
            yield framing.take(*await anext(events))  # a failure before this is a status
            try:
                async for index, event in events:
                    if chunk := framing.take(index, event):
                        yield chunk
            except Error as error:
                logger.warning("stream_failed code=%s message=%s", error.code, error)
                await self.aclose()  # nobody reads the others any more
                yield framing.fail(error)
            else:
                yield framing.finish()


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do the work unless the client goes first: then cancel it, wait until it has stopped.

    Raises:
        ClientGone: it went.
    """
    # The work has begun before any cancellation can reach it: so it can close what it uses.
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _pump(
    index: int, generation: Generation, queue: asyncio.Queue[tuple[int, Event | Exception]]
) -> None:
    try:
        async for event in generation:
            queue.put_nowait((index, event))
    except Exception as error:  # noqa: BLE001 # raised where the queue is read
        queue.put_nowait((index, error))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Stream(Response[Any]):
    """What a handler returns; Litestar makes the ASGI answer from it."""

    def __init__(
        self,
        reply: Reply,
        first: bytes,
        chunks: AsyncGenerator[bytes, None],
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__(content=b"", media_type=media_type, headers=headers)
        self._reply = reply
        self._first = first
        self._chunks = chunks

    def to_asgi_response(self, *_: Any, **from_layers: Any) -> ASGIResponse:
        return _AsgiStream(
            self._reply,
            self._first,
            iterator=self._chunks,
            headers={**(from_layers.get("headers") or {}), **self.headers},
            cookies=[*self.cookies, *(from_layers.get("cookies") or [])],
            media_type=self.media_type,
            status_code=from_layers.get("status_code"),
        )


class _AsgiStream(ASGIStreamingResponse):
    """Closes what it is made from whatever happens.

    Litestar's own streaming answer closes nothing when it is cancelled inside `send`: its
    generator would give the slot in the engine back only when it is collected.
    """

    def __init__(
        self,
        reply: Reply,
        first: bytes,
        *,
        iterator: AsyncGenerator[bytes, None],
        **fields: Any,
    ) -> None:
        super().__init__(iterator=iterator, **fields)
        self._reply = reply
        self._first = first
        self._chunks = iterator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._reply.aclose()
            await self._chunks.aclose()

    async def send_body(self, send: Send, receive: Receive) -> None:
        try:
            await while_connected(receive, self._send_chunks(send))
        except (ClientGone, OSError):  # a server may also raise OSError in `send`
            logger.info("client_gone model=%s", self._reply.model_id)

    async def _send_chunks(self, send: Send) -> None:
        if self._first:
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
