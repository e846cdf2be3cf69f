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

from app.contract.generation import Event, TextDelta
from app.errors import Error

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


class Source(Protocol):
    """What a stream is made from."""

    @property
    def model_id(self) -> str:
        """Which model writes."""

    async def aclose(self) -> None:
        """End it; harmless when repeated."""


class TextSource(Source, Protocol):
    """A `Generation`, or what a dialect puts around one."""

    async def __anext__(self) -> Event:
        """Return what comes next."""


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


async def stream_chunks(
    request: Request[Any, Any, Any],
    source: Source,
    chunks: AsyncGenerator[bytes, None],
    media_type: str,
    headers: dict[str, str],
) -> Response[Any]:
    """Stream chunks that a dialect frames itself; wait for the first, as `stream` does.

    Args:
        request: whose client is watched.
        source: closed in any case.
        chunks: raises an Error only before its first chunk; closed in any case.
        media_type: of the answer.
        headers: of the answer.

    Raises:
        Error: there is no first chunk.
        ClientGone: the client went before it.
    """
    first = await while_connected(request.receive, anext(chunks))
    return _Stream(source, chunks, media_type, headers, first)


async def _framed(
    event: Event, generation: TextSource, framing: Framing
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
        source: Source,
        chunks: AsyncGenerator[bytes, None],
        media_type: str,
        headers: dict[str, str],
        first: bytes = b"",
    ) -> None:
        super().__init__(content=b"", media_type=media_type, headers=headers)
        self._source = source
        self._chunks = chunks
        self._first = first

    def to_asgi_response(self, *_: Any, **from_layers: Any) -> ASGIResponse:
        return _AsgiStream(
            self._source,
            self._chunks,
            self._first,
            headers={**(from_layers.get("headers") or {}), **self.headers},
            cookies=[*self.cookies, *(from_layers.get("cookies") or [])],
            media_type=self.media_type,
            status_code=from_layers.get("status_code"),
        )


class _AsgiStream(ASGIResponse):
    """Closes what it is made from whatever happens.

    Litestar's own streaming answer closes nothing when it is cancelled inside `send`: its
    generator would give the place in the engine back only when it is collected.
    """

    _should_set_content_length = False

    def __init__(
        self, source: Source, chunks: AsyncGenerator[bytes, None], first: bytes, **fields: Any
    ) -> None:
        super().__init__(**fields)
        self._source = source
        self._chunks = chunks
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._source.aclose()
            await self._chunks.aclose()

    async def send_body(self, send: Send, receive: Receive) -> None:
        try:
            await while_connected(receive, self._send_chunks(send))
        except (ClientGone, OSError):  # a server may also raise OSError in `send`
            logger.info("client_gone model=%s", self._source.model_id)

    async def _send_chunks(self, send: Send) -> None:
        if self._first:
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
