"""The ASGI application under both of Granian's asynchronous interfaces.

`granian app:app` speaks RSGI to whatever it loads; `granian --interface asgi app:app` calls it
as ASGI. One object answers both. Translation only: knows no route and no setting.

Source: Granian's docs/spec/RSGI.md and the ASGI HTTP specification, version 2.4.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Protocol

from granian.rsgi import (  # type: ignore[attr-defined] # re-exports ProtocolClosed silently
    ProtocolClosed,
    Scope,
)

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from litestar.types import ASGIApp, Message

    from app.process.sockets import Address


class Life(Protocol):
    """What goes on beside requests."""

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """From before the first request until after the last.

        Raises:
            StartFailed: the server can't serve; why has been logged.
        """

    def serving(self, client: Address | None) -> AbstractContextManager[None]:
        """While a request of a client is under way."""

    async def cut(self, client: Address) -> None:
        """Close a client's connection such that its answer doesn't look whole."""


class StartFailed(Exception):
    """The server can't serve; why has been logged."""


class DualInterface:
    """An application for both of Granian's asynchronous interfaces."""

    def __init__(self, application: ASGIApp, life: Life) -> None:
        self._application = application
        self._life = life
        self._stopping = asyncio.Event()
        self._lifespan: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI connection, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._asgi_lifespan(receive, send)
            return
        # Granian gives ports as strings, and an empty host for a Unix socket
        host, port = scope["client"]
        scope["client"] = (host.partition("%")[0], int(port)) if host else None
        with self._life.serving(scope["client"]):
            await self._application(scope, receive, send)

    async def _asgi_lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        try:
            async with self._life.lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except StartFailed:
            await send({"type": "lifespan.startup.failed"})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        started = loop.create_future()
        self._lifespan = loop.create_task(self._live(started))
        # Whichever is first: a start-up that fails ends the process.
        loop.run_until_complete(
            asyncio.wait({started, self._lifespan}, return_when=asyncio.FIRST_COMPLETED)
        )
        if self._lifespan.done():
            try:
                self._lifespan.result()
            except StartFailed:
                sys.exit(1)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._lifespan is not None, "__rsgi_init__ has not run"
        self._stopping.set()
        loop.run_until_complete(self._lifespan)

    async def _live(self, started: asyncio.Future[None]) -> None:
        """The lifespan in one task, as its cancel scopes want it."""
        async with self._life.lifespan():
            started.set_result(None)
            await self._stopping.wait()

    async def __rsgi__(self, scope: Scope, protocol: Any) -> None:
        if scope.proto != "http":
            protocol.close(403)  # no dialect has a WebSocket
            return
        exchange = _Exchange(protocol, end_chunks=_end_chunks(scope))
        translated = _asgi_scope(scope)
        try:
            with self._life.serving(translated["client"]):
                await self._application(translated, exchange.receive, exchange.send)
        except Exception:
            if exchange.streaming and translated["client"] is not None:
                await self._life.cut(translated["client"])
            raise
        finally:
            exchange.end()


class _Exchange:
    """One request and its answer: ASGI messages on one side, an RSGI protocol on the other."""

    def __init__(self, protocol: Any, *, end_chunks: int | None) -> None:
        self._protocol = protocol
        self._chunks = aiter(protocol)
        self._body_left = True
        self._end_chunks = end_chunks
        self._start: tuple[int, list[tuple[str, str]]] | None = None
        self._stream: Any = None

    @property
    def streaming(self) -> bool:
        """Whether an answer has begun and not ended."""
        return self._stream is not None

    def end(self) -> None:
        """End a stream: Granian writes the final chunk when the transport is dropped."""
        self._stream = None

    async def receive(self) -> Any:
        """The body in chunks, then the disconnect."""
        if self._body_left:
            # anext(…, default) on Granian's iterator ends the process without a word (2.8.7)
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                chunk, self._body_left = b"", False
            if self._body_left and not chunk and self._end_chunks is not None:
                self._end_chunks -= 1
                if self._end_chunks < 0:
                    self._body_left = False
                    return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunk, "more_body": self._body_left}
        await self._protocol.client_disconnect()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Answer whole where the first body message is the last one, else as a stream."""
        if message["type"] == "http.response.start":
            headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message["headers"]]
            self._start = message["status"], headers
        elif message["type"] == "http.response.body":
            assert self._start is not None, "a body before its start"
            body, more = message["body"], message["more_body"]
            if self._stream is None and not more:
                self._protocol.response_bytes(*self._start, body)
                return
            if self._stream is None:
                self._stream = self._protocol.response_stream(*self._start)
            if body:
                try:
                    await self._stream.send_bytes(body)
                except ProtocolClosed as error:
                    raise OSError("the client has gone") from error
            if not more:
                self.end()


def _end_chunks(scope: Scope) -> int | None:
    """How many empty chunks a body has that is whole; None: an empty one means nothing.

    Granian gives an empty chunk for the end, another for trailers, and another for an error: a
    body that broke off would otherwise look like one that ended.
    """
    if not scope.http_version.startswith("1"):
        return None  # in HTTP/2 a client may send empty frames
    return 2 if "trailer" in scope.headers else 1


def _asgi_scope(scope: Scope) -> Any:
    headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in scope.headers.items()]
    if scope.authority and "host" not in scope.headers:
        headers.append((b"host", scope.authority.encode("latin-1")))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": scope.http_version,
        "method": scope.method,
        "scheme": scope.scheme,
        "path": scope.path,
        "raw_path": scope.path.encode("utf-8"),
        # clients may send it as it is, without percent signs
        "query_string": scope.query_string.encode("utf-8"),
        "root_path": "",
        "headers": headers,
        "client": _address(scope.client),
        "server": _address(scope.server) or (scope.server, None),
        "state": {},
    }


def _address(text: str) -> Address | None:
    """Read `host:port`; None for the path of a Unix socket, or no name at all."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        return None
    return host.strip("[]").partition("%")[0], int(port)
