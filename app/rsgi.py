"""The ASGI application under Granian's default interface, RSGI.

`granian app:app` speaks RSGI to whatever it loads; `granian --interface asgi app:app` calls it
as ASGI. One object answers both. Translation only: knows no route and no setting.

Source: Granian's docs/spec/RSGI.md and the ASGI HTTP specification, version 2.4.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from granian.rsgi import (  # type: ignore[attr-defined] # re-exports ProtocolClosed silently
    ProtocolClosed,
    Scope,
)

if TYPE_CHECKING:
    from litestar import Litestar
    from litestar.types import Message, Receive, Send
    from litestar.types import Scope as AsgiScope


logger = logging.getLogger(__name__)


class DualInterface:
    """An application for both of Granian's asynchronous interfaces."""

    def __init__(self, application: Litestar) -> None:
        self._application = application
        self._stopping = asyncio.Event()
        self._lifespan: asyncio.Task[None] | None = None

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        await self._application(scope, receive, send)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        started = loop.create_future()
        self._lifespan = loop.create_task(self._live(started))
        # Whichever is first: a start-up that fails ends the process with its traceback.
        loop.run_until_complete(
            asyncio.wait({started, self._lifespan}, return_when=asyncio.FIRST_COMPLETED)
        )
        if self._lifespan.done():
            self._lifespan.result()

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._lifespan is not None, "__rsgi_init__ has not run"
        self._stopping.set()
        loop.run_until_complete(self._lifespan)

    async def _live(self, started: asyncio.Future[None]) -> None:
        """The lifespan in one task, as its cancel scopes want it."""
        async with self._application.lifespan():
            started.set_result(None)
            await self._stopping.wait()

    async def __rsgi__(self, scope: Scope, protocol: Any) -> None:
        if scope.proto != "http":
            protocol.close(403)  # no dialect has a WebSocket
            return
        exchange = _Exchange(protocol)
        try:
            await self._application(_asgi_scope(scope), exchange.receive, exchange.send)
        except Exception:
            if exchange.streaming:
                await _cut_connection(scope.client)
            raise
        finally:
            exchange.end()


class _Exchange:
    """One request and its answer: ASGI messages on one side, an RSGI protocol on the other."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._chunks = aiter(protocol)
        self._body_left = True
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


async def _cut_connection(client: str) -> None:
    """Close a client's connection without the final chunk, as ASGI servers do after a failure.

    RSGI can only end a stream like a complete one, and half an answer must not look whole. So
    the socket is looked up by its peer among this process's own and shut down.
    """
    await asyncio.sleep(0.1)  # what was sent already goes out first; Granian writes on its thread
    peer = _address(client)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 # numbers, not paths
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.getpeername()[:2] == peer:
                    connection.shutdown(socket.SHUT_RDWR)
                    return
        except OSError:  # closed meanwhile, or a socket without a peer
            continue
    logger.error("connection_not_cut client=%s", client)


def _asgi_scope(scope: Scope) -> Any:
    client, server = _address(scope.client), _address(scope.server)
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
        "query_string": scope.query_string.encode("latin-1"),
        "root_path": "",
        "headers": headers,
        "client": client,
        "server": server,
        "state": {},
    }


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
