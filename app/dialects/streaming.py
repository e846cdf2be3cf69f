"""Answer with a text while it is made, and stop making it when the client goes.

Knows no framing and no dialect.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Protocol, TypeVar

from litestar import Request
from litestar.response import Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from app.errors import Error
from app.generation.requests import Finished, TextDelta

logger = logging.getLogger(__name__)
T = TypeVar("T")


class ClientGone(Exception):
    """There is nobody left to answer."""


class Framing(Protocol):
    """How a dialect writes a stream."""

    def encode(self, text: str) -> bytes:
        """Frame a piece of the text; may hold it back and return nothing."""

    def finish(self) -> bytes:
        """Frame what was held back and the end."""

    def fail(self, message: str) -> bytes:
        """Frame what was held back and a failure, so that it never looks like the end."""


class TextSource(Protocol):
    """A `Generation`, or what a dialect puts around one."""

    @property
    def model_id(self) -> str:
        """Which model writes."""

    async def __anext__(self) -> TextDelta | Finished:
        """Return what comes next."""

    async def aclose(self) -> None:
        """End it; harmless when repeated."""


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


async def stream(
    request: Request[Any, Any, Any],
    generation: TextSource,
    framing: Framing,
    media_type: str,
    headers: dict[str, str],
) -> Response[Any]:
    """Wait for the first event, so that a failure before it is a status, then stream.

    Raises:
        Error: the generation failed before its first event.
        ClientGone: the client went before it.
    """
    first = await while_connected(request.receive, generation.__anext__())
    return _Stream(generation, _framed(first, generation, framing), media_type, headers)


async def _framed(
    event: TextDelta | Finished, generation: TextSource, framing: Framing
) -> AsyncGenerator[bytes, None]:
    try:
        while isinstance(event, TextDelta):
            if chunk := framing.encode(event.text):
                yield chunk
            event = await anext(generation)
    except Error as error:
        logger.warning("stream_failed code=%s message=%s", error.code, error.message)
        yield framing.fail(error.message)
    else:
        yield framing.finish()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Stream(Response[Any]):
    """What a handler returns; Litestar makes the ASGI answer from it."""

    def __init__(
        self,
        generation: TextSource,
        chunks: AsyncGenerator[bytes, None],
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__(content=b"", media_type=media_type, headers=headers)
        self._generation = generation
        self._chunks = chunks

    def to_asgi_response(self, *_: Any, **from_layers: Any) -> ASGIResponse:
        return _AsgiStream(
            self._generation,
            self._chunks,
            headers={**(from_layers.get("headers") or {}), **self.headers},
            cookies=[*self.cookies, *(from_layers.get("cookies") or [])],
            media_type=self.media_type,
            status_code=from_layers.get("status_code"),
        )


class _AsgiStream(ASGIResponse):
    """Closes the generation whatever happens.

    Litestar's own streaming answer closes nothing when it is cancelled inside `send`: its
    generator would give the place in the engine back only when it is collected.
    """

    _should_set_content_length = False

    def __init__(
        self, generation: TextSource, chunks: AsyncGenerator[bytes, None], **fields: Any
    ) -> None:
        super().__init__(**fields)
        self._generation = generation
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._generation.aclose()
            await self._chunks.aclose()

    async def send_body(self, send: Send, receive: Receive) -> None:
        try:
            await while_connected(receive, self._send_chunks(send))
        except (ClientGone, OSError):  # a server may also raise OSError in `send`
            logger.info("client_gone model=%s", self._generation.model_id)

    async def _send_chunks(self, send: Send) -> None:
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
