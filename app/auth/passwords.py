"""Hash and verify passwords: argon2id, off the event loop, a few at a time, the urgent ones first.

Knows nothing of users.
"""

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from typing import Final, TypeVar

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import Overloaded

# Each takes the memory of one hash (64 MiB), and its threads from the decoder.
CONCURRENT: Final = 2
NICENESS: Final = 10
"""A thread of the decoder gets nine times as much of a core that both want."""
# 256 hashes of 50 ms on two threads: nobody waits for more than some seconds.
MAX_WAITING: Final = 256
"""Hashes of one urgency that may wait: a flood of one leaves the queues before it empty."""

T = TypeVar("T")


class Urgency(IntEnum):
    """Whose hash is next; within one, the order of arrival."""

    OWNER = 0
    """Somebody with a valid token, or at an address from which this account signed in before."""
    SIGN_IN = 1
    """Anybody else who signs in."""
    REGISTRATION = 2


class PasswordHasher:
    """argon2id on threads of its own; beyond `MAX_WAITING`, callers are refused."""

    def __init__(self, *, memory_kib: int, time_cost: int) -> None:
        # four lanes: RFC 9106's second recommendation
        lanes = min(4, memory_kib // 8)
        self._argon2 = argon2.PasswordHasher(
            memory_cost=memory_kib, time_cost=time_cost, parallelism=lanes
        )
        self._threads = ThreadPoolExecutor(
            CONCURRENT, thread_name_prefix="argon2", initializer=_give_way
        )
        self._free = CONCURRENT
        self._waiting: dict[Urgency, deque[asyncio.Future[None]]] = {
            urgency: deque() for urgency in Urgency
        }

    async def hash(self, password: str, urgency: Urgency) -> str:
        """Hash a new password; also what a verification costs, to spend the same time.

        Raises:
            Overloaded: too many of this urgency are waiting.
        """
        return await self.run(lambda: self._argon2.hash(_bytes(password)), urgency)

    async def verify(self, stored: str, password: str, urgency: Urgency) -> bool:
        """Tell whether the password is the one that was hashed.

        Raises:
            Overloaded: too many of this urgency are waiting.
        """
        return await self.run(lambda: self._verify(stored, password), urgency)

    async def run(self, work: Callable[[], T], urgency: Urgency) -> T:
        """Run something on the threads when its turn comes.

        Raises:
            Overloaded: too many of this urgency are waiting.
        """
        await self._turn(urgency)
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # Not when the caller ends: one that is cancelled leaves a thread that still works.
        running.add_done_callback(lambda _: self._give_back())
        return await asyncio.shield(running)

    def outdated(self, stored: str) -> bool:
        """Tell whether a hash was made with parameters other than today's."""
        return self._argon2.check_needs_rehash(stored)

    def close(self) -> None:
        """Start no further hash."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(self, urgency: Urgency) -> None:
        if self._free:  # then nobody waits
            self._free -= 1
            return
        waiting = self._waiting[urgency]
        if len(waiting) >= MAX_WAITING:
            raise Overloaded(len(waiting), MAX_WAITING)
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                waiting.remove(turn)
            else:  # the turn came, and there is nobody to take it
                self._give_back()
            raise

    def _give_back(self) -> None:
        for waiting in self._waiting.values():  # in the order of urgency
            if waiting:
                waiting.popleft().set_result(None)
                return
        self._free += 1

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._argon2.verify(stored, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False


def _give_way() -> None:
    """Leave the processor to the decoder first: this thread, and those that it starts."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _bytes(password: str) -> bytes:
    # surrogatepass: a password that is no valid text is wrong, not a fault of ours
    return password.encode(errors="surrogatepass")
