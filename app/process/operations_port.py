"""A second listener, for operations alone: it answers whatever the first one is busy with.

Enough of HTTP/1.1 for probes and scrapers, one request a connection and no bodies: Granian has
one listener for everything, and takes no more connections when as many as it allows are open.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

from litestar.types import ASGIApp

from app.process import sockets
from app.settings import InvalidSetting

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 10.0
_HEAD_BYTES: Final = 8192
_AT_ONCE: Final = 64
_NOT_FOUND: Final = b"HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


@asynccontextmanager
async def serving(address: str, application: ASGIApp, paths: Sequence[str]) -> AsyncIterator[None]:
    """Answer requests for some paths at an address of our own.

    Args:
        address: `host:port`; empty: nowhere.
        application: what answers.
        paths: those that are answered; any other is not found.

    Raises:
        InvalidSetting: the address is malformed or can't be bound.
    """
    if not address:
        yield
        return
    port = _OperationsPort(application, paths)
    server = await _start(address, port)
    try:
        yield
    finally:
        server.close()
        await port.close()


async def _start(address: str, port: "_OperationsPort") -> asyncio.Server:
    host, _, number = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not number.isdecimal() or not 0 < int(number) < 65536:
        raise InvalidSetting(f"LLMHOST_OPERATIONS_ADDRESS={address!r}: expected host:port")
    try:
        # several workers share it, as they share the first
        server = await asyncio.start_server(
            port.answer, host, int(number), limit=_HEAD_BYTES, reuse_port=True
        )
    except OSError as error:
        raise InvalidSetting(f"LLMHOST_OPERATIONS_ADDRESS={address!r}: {error.strerror}") from error
    if (taken := _taken(server)) is not None:
        server.close()
        raise InvalidSetting(f"LLMHOST_OPERATIONS_ADDRESS={address!r}: {taken}")
    logger.info("operations on http://%s", address)
    return server


def _taken(server: asyncio.Server) -> str | None:
    """Say who else takes connections on a server's address, or will; None: nobody.

    The kernel would share them out: clients would get this listener's 404 for every other request.
    """
    address = server.sockets[0].getsockname()[:2]
    if any(sockets.overlap(address, granians) for granians in sockets.bound_addresses()):
        return "that is where clients are served, expected another port"
    pid = sockets.rival_of(address)
    return None if pid is None else f"in use by process {pid}"


class _OperationsPort:
    def __init__(self, application: ASGIApp, paths: Sequence[str]) -> None:
        self._application = application
        self._paths = paths
        self._tasks: set[asyncio.Task[Any]] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # what is cut, late, too long or no HTTP is answered by closing
            with contextlib.suppress(OSError, TimeoutError, EOFError, ValueError):
                async with asyncio.timeout(_PATIENCE_S):
                    if len(self._tasks) <= _AT_ONCE:
                        await self._exchange(reader, writer)
        except asyncio.LimitOverrunError:
            logger.info("operations_head_too_long limit=%d", _HEAD_BYTES)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        scope = _scope(await reader.readuntil(b"\r\n\r\n"), writer.get_extra_info("peername"))
        without_body = scope["method"] == "HEAD"
        if scope["path"] not in self._paths:
            writer.write(_NOT_FOUND)
            await writer.drain()
            return

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                status = HTTPStatus(message["status"])
                lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), b"connection: close"]
                lines += [name + b": " + value for name, value in message["headers"]]
                writer.write(b"\r\n".join([*lines, b"", b""]))
            elif not without_body:
                writer.write(message["body"])
            await writer.drain()

        await self._application(scope, receive, send)


def _scope(head: bytes, client: Any) -> Any:
    """Read a request's head.

    Raises:
        ValueError: it is malformed.
    """
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, version = first.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(version)
    path, _, query = target.partition("?")
    headers = [line.partition(":")[::2] for line in lines]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": version.removeprefix("HTTP/"),
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [
            (name.strip().lower().encode("latin-1"), value.strip().encode("latin-1"))
            for name, value in headers
        ],
        "client": (client[0], client[1]),
        "server": None,
        "state": {},
    }
