"""What goes on in a worker process beside requests, from its start to its end."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from ipaddress import IPv6Address, ip_address
from typing import Final

from app.asgi import Server
from app.auth.clients import Network, client_address, parse_networks
from app.process import listening, operations_port, sockets
from app.process.banner import banner, shown_while_starting
from app.process.connections import Connections
from app.process.interfaces import StartFailed
from app.process.listening import PortTaken
from app.process.signals import StopSignals, exit_while_starting, in_worker
from app.process.sockets import Address, Listener
from app.process.start import report
from app.settings import Settings

logger = logging.getLogger(__name__)

_FLUSH_S: Final = 5.0
"""How long connections may stay once nothing is generated: for the ends of answers. A body that is
still on its way would be refused."""


class Worker:
    """One worker process: what goes on in it beside requests. `interfaces.Life`."""

    def __init__(self, server: Server, settings: Settings) -> None:
        self.application = server.application
        self._server = server
        self._settings = settings
        proxies = parse_networks(settings.trusted_proxies)
        self._connections = Connections(
            per_address=settings.max_connections_per_address,
            idle_s=settings.idle_connection_s,
            group=lambda host: _group(host, proxies),
        )
        self._signals: StopSignals | None = None
        self._listening: asyncio.Task[list[Listener]] | None = None
        """Finds out where Granian listens."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """From before the first request until after the last.

        Raises:
            StartFailed: the server can't serve; why has been logged.
        """
        exit_while_starting()
        if in_worker():
            # made here, it holds nobody up for 0.2 s when it is first asked for
            _ = self.application.openapi_schema
            _spare_collector()
        async with AsyncExitStack() as cleanup:
            try:
                # first: it answers that this process lives, and that it loads
                await cleanup.enter_async_context(
                    operations_port.serving(
                        self._settings.operations_address,
                        self.application,
                        self._server.operations_paths,
                    )
                )
                beside = sockets.listeners()
                with shown_while_starting(self._settings.model):
                    await cleanup.enter_async_context(self.application.lifespan())
            except Exception as error:
                report(error)
                raise StartFailed from error
            if in_worker():
                self._signals = StopSignals(self._stop)
                cleanup.push_async_callback(self._signals.close)
            cleanup.callback(self._connections.close)
            self._listening = asyncio.create_task(self._look_after(beside))
            announcing = asyncio.create_task(self._announce(self._listening))
            cleanup.callback(announcing.cancel)
            cleanup.callback(self._listening.cancel)
            yield

    def serving(self, client: Address | None) -> AbstractContextManager[None]:
        """While a request of a client is under way."""
        return self._connections.serving(client)

    async def cut(self, client: Address) -> None:
        """Close a client's connection such that its answer doesn't look whole."""
        await self._connections.cut(client)

    async def _look_after(self, beside: Collection[Listener]) -> list[Listener]:
        """Wait until Granian listens, and look after what comes in there."""
        found = await listening.wait_for_listeners(beside)
        sockets.limit_unread(self._settings.send_timeout_s)
        self._connections.watch({one.place for one in found})
        return found

    async def _announce(self, listening_: asyncio.Task[list[Listener]]) -> None:
        """Say that we are ready, when we are."""
        found = await asyncio.shield(listening_)
        try:
            await listening.refuse_shared_ports(found)
            urls = [await listening.url_of(one) for one in found]
        except (PortTaken, OSError) as error:
            report(error)
            signal.raise_signal(signal.SIGTERM)
            return
        if not self._settings.require_auth:
            listening.warn_if_exposed(found)
        for url in urls:
            logger.info("ready on %s model=%s", url, self._settings.model or "none")
        if sys.stderr.isatty() and self._settings.log_format == "text":
            exposed = not all(one.loopback for one in found)
            text = banner(self._settings, urls, self._server.models.loaded, exposed=exposed)
            sys.stderr.write(text)

    async def _stop(self) -> None:
        """Finish what runs, have Granian stop, and see that it can."""
        assert self._listening is not None
        # at once but in the moment after the start, when there are connections already
        listeners = await asyncio.shield(self._listening)
        # Where another worker takes connections too, new requests are better off with that one.
        # Where there is none, they are told that the server is about to stop.
        beside = await asyncio.to_thread(
            lambda: any(
                sockets.workers_on((one.host, one.port))
                for one in listeners
                if one.port is not None
            )
        )
        assert self._signals is not None
        if beside:
            self._signals.pass_on()
        await self._server.drain()
        if not beside:
            self._signals.pass_on()
        await self._connections.end(_FLUSH_S)


def _group(host: str, exempt: Collection[Network]) -> str | None:
    """What a connection's host counts as; None: it has no limit."""
    try:
        ip = ip_address(host)
    except ValueError:  # a Unix socket
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    if any((mapped or ip) in network for network in exempt):
        return None
    return client_address(host, (), ())


def _spare_collector() -> None:
    """Take all that the imports have left out of what the collector goes through.

    It stays for good, and with these 150,000 objects each full collection would hold every thread
    up for 0.14 s.
    """
    gc.collect()
    gc.freeze()
