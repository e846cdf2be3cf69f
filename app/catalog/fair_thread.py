"""One thread for costly work: one job at a time, and clients take turns.

While a client's job waits, every other client gets at most one before it, however many it has sent.
A job whose client has gone still ends before the next one begins, so that nobody can pile them up.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class FairThread:
    """A thread, and the clients that wait for it. Methods belong to the event loop."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._busy = False
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By client, none empty; whose turn is next comes first."""

    async def run(self, client: str, work: Callable[[], T]) -> T:
        """Do some work when it is the client's turn.

        Args:
            client: who asks; "" is everybody without a name.
            work: runs to its end even if whoever waits for it is cancelled.

        Raises:
            Exception: whatever the work raises.
        """
        if self._busy:
            await self._turn(client)
        self._busy = True
        job = asyncio.get_running_loop().run_in_executor(self._thread, work)
        job.add_done_callback(self._ended)
        return await asyncio.shield(job)

    async def _turn(self, client: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the turn has come, and nobody takes it
                self._next()
            raise

    def _ended(self, job: "asyncio.Future[T]") -> None:
        if not job.cancelled():
            job.exception()  # where nobody waits any more nobody else would look at it
        self._next()

    def _next(self) -> None:
        """Give the turn to the next client's oldest job that still has somebody waiting."""
        while self._waiting:
            client = next(iter(self._waiting))
            turns = self._waiting.pop(client)
            turn = turns.popleft()
            if turns:
                self._waiting[client] = turns
            if not turn.done():
                turn.set_result(None)  # still busy: whoever came meanwhile waits
                return
        self._busy = False
