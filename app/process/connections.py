"""Limits on connections: how many one address may have, and how long an idle one stays.

Granian limits the time for a request's head and the number of connections in all, and takes no
more once that is reached: one client that opens so many would shut out everybody, and the health
checks too. Knows no HTTP.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import Final

from app.process import sockets
from app.process.sockets import Address, Place

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.25
GLANCE_EVERY_S: Final = 0.025
MANY: Final = 64
"""So many more descriptors than at the last look are a reason to look at once: a flood would use up
what Granian takes, and whoever comes then would wait for the next look."""
_END_EVERY_S: Final = 0.05
_FLUSH_S: Final = 0.1


class Connections:
    """What is connected to this process, and which of it has a request under way."""

    def __init__(
        self, *, per_address: int, idle_s: float, group: Callable[[str], str | None]
    ) -> None:
        """Watch nothing yet.

        Args:
            per_address: how many one address may have at once; 0: no limit.
            idle_s: how long one without a request may carry no data; 0: for ever.
            group: names what counts as one address; None: a host that has no limit.
        """
        self._per_address = per_address
        self._idle_s = idle_s
        self._group = group
        self._places: Collection[Place] = ()
        self._serving: Counter[Address] = Counter()
        self._known: dict[Address, None] = {}
        """In the order in which they came."""
        self._crowded = False
        """Whether an address had too many at the last look, some of them new."""
        self._watching: threading.Thread | None = None
        self._over = threading.Event()

    @contextlib.contextmanager
    def serving(self, client: Address | None) -> Iterator[None]:
        """Leave a connection alone while a request of it is under way."""
        if client is None:
            yield
            return
        self._serving[client] += 1
        try:
            yield
        finally:
            self._serving[client] -= 1
            if not self._serving[client]:
                del self._serving[client]

    def watch(self, places: Collection[Place]) -> None:
        """Begin to look after the connections to these places, on a thread of its own.

        A request that stalls the event loop doesn't stall this.
        """
        self._places = frozenset(places)
        self._watching = threading.Thread(target=self._watch, name="connections", daemon=True)
        self._watching.start()

    def close(self) -> None:
        """Stop looking after them."""
        self._over.set()
        if self._watching is not None:
            self._watching.join()

    async def cut(self, client: Address) -> None:
        """Close a client's connection without the end of its answer.

        RSGI can only end a stream like a complete one, and half an answer must not look whole.
        """
        await asyncio.sleep(_FLUSH_S)  # what was sent already goes out first: on Granian's thread
        if not sockets.cut(self._places, client.__eq__, at_once=False):
            logger.error("connection_not_cut client=%s", client)

    def look_over(self) -> None:
        """Cut those that are too many from one address, and those that have been idle too long."""
        found = sockets.connections(self._places)
        serving = set(self._serving)  # in one go: the event loop may change it meanwhile
        idle = {c.peer for c in found if 0 < self._idle_s <= c.idle_s} - serving
        peers = {c.peer: None for c in found}
        stayed = {peer: None for peer in self._known if peer in peers}
        self._known = stayed | peers
        by_group = defaultdict[str, list[Address]](list)
        for peer in self._known:
            if (group := self._group(peer[0])) is not None:
                by_group[group].append(peer)
        self._crowded = False
        excess: set[Address] = set()
        for group, members in by_group.items():
            # the newest have to go: what others of this address have begun is not theirs to end
            beyond = members[self._per_address :] if self._per_address else []
            # one that was not there before may be a short question, such as a probe's
            too_many = [peer for peer in beyond if peer in stayed]
            self._crowded |= len(too_many) < len(beyond)
            if too_many:
                logger.warning(
                    "too_many_connections address=%s limit=%d cut=%d",
                    group,
                    self._per_address,
                    len(too_many),
                )
                excess.update(too_many)
        if idle | excess:
            sockets.cut(self._places, (idle | excess).__contains__)

    async def end(self, patience_s: float) -> None:
        """Wait until no connection is left, then cut those that are."""
        give_up = time.monotonic() + patience_s
        while time.monotonic() < give_up:
            if not sockets.connections(self._places):
                return
            await asyncio.sleep(_END_EVERY_S)
        if count := sockets.cut(self._places, lambda _: True):
            logger.warning("connections_cut count=%d", count)
        # accepted meanwhile, or not closed yet
        while sockets.cut(self._places, lambda _: True):  # noqa: ASYNC110 # no event tells
            await asyncio.sleep(_END_EVERY_S)

    def _watch(self) -> None:
        looked_s, descriptors = 0.0, 0
        while not self._over.wait(GLANCE_EVERY_S):
            due = time.monotonic() - looked_s >= LOOK_EVERY_S
            if due or self._crowded or sockets.num_descriptors() > descriptors + MANY:
                self.look_over()
                looked_s, descriptors = time.monotonic(), sockets.num_descriptors()
