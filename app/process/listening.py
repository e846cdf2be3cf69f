"""Where the server listens: that nobody else does, that it answers there, and whom it lets in.

Granian tells the application nothing of this, and listens only after the application has started:
so this looks at the process's own sockets.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Final

from app.process import sockets
from app.process.sockets import Address, Listener

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.05
_PATIENCE_S: Final = 10.0
_YIELD_S: Final = 5.0
"""How long a server that has started beside this one may take to see it and end."""


class PortTaken(Exception):
    """Another server takes connections where this one is to; the message says which."""

    def __init__(self, address: Address, pid: int) -> None:
        host, port = address
        whose = f"process {pid}" if pid else "another process"
        super().__init__(
            f"port {port} of {host} is in use by {whose}: stop that, or choose another with --port"
        )


def refuse_taken_port() -> None:
    """Look, before anything costly, whether another server has the port that is to be ours.

    Raises:
        PortTaken: it has.
    """
    for address in sockets.bound_addresses():
        _refuse_rival(address)


async def refuse_shared_ports(listeners: list[Listener]) -> None:
    """Look again, once we listen: another server may have started at the same time.

    Then the older one stays; but the younger may have looked before the older listened, and stays
    for good.

    Raises:
        PortTaken: one has, and stays.
    """
    for listener in listeners:
        if listener.port is None:
            continue
        address = listener.host, listener.port
        for _ in range(int(_YIELD_S / LOOK_EVERY_S)):
            pid = sockets.rival_of(address)
            if pid is None or not sockets.is_younger(pid):
                break
            await asyncio.sleep(LOOK_EVERY_S)
        _refuse_rival(address)


async def wait_for_listeners(beside: Collection[Listener] = ()) -> list[Listener]:
    """Wait until this process listens, beside where it did before; nothing if it never does."""
    for _ in range(int(_PATIENCE_S / LOOK_EVERY_S)):
        if found := [listener for listener in sockets.listeners() if listener not in beside]:
            return found
        await asyncio.sleep(LOOK_EVERY_S)
    return []


async def url_of(listener: Listener) -> str:
    """Ask a listener for something, and make a URL of where it is when it has answered.

    Raises:
        OSError: it does not answer.
    """
    if listener.port is None:
        reader, writer = await asyncio.open_unix_connection(listener.host)
    else:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.host, listener.host)  # noqa: S104 # compared
        reader, writer = await asyncio.open_connection(host, listener.port)
    try:
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(_PATIENCE_S):
            first = await reader.read(1)
    finally:
        writer.close()
    # where TLS is expected, plain text is answered with an alert (type 21) or not at all
    scheme = "https" if first in (b"", b"\x15") else "http"
    return f"{scheme}://{listener}"


def warn_if_exposed(listeners: list[Listener]) -> None:
    """Tell the operator of an open server that other machines can reach it."""
    for listener in listeners:
        if not listener.loopback:
            logger.warning(
                "open_to_others address=%s: whoever reaches it may generate, load and unload "
                "without a token; LLMHOST_REQUIRE_AUTH=true asks for one",
                listener,
            )


def _refuse_rival(address: Address) -> None:
    if (pid := sockets.rival_of(address)) is not None:
        raise PortTaken(address, pid)
