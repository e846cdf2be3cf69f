"""Hash and verify passwords: argon2id, off the event loop, a few at a time.

Knows nothing of users.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from app.errors import Overloaded

# Each takes the memory of one hash (64 MiB), and its threads from the decoder.
CONCURRENT: Final = 2
# 256 hashes of 50 ms on two threads: nobody waits for more than some seconds.
MAX_WAITING: Final = 256

T = TypeVar("T")


class PasswordHasher:
    """argon2id on threads of its own; beyond `MAX_WAITING`, callers are refused."""

    def __init__(self, *, memory_kib: int, time_cost: int) -> None:
        # four lanes: RFC 9106's second recommendation
        lanes = min(4, memory_kib // 8)
        self._argon2 = argon2.PasswordHasher(
            memory_cost=memory_kib, time_cost=time_cost, parallelism=lanes
        )
        self._threads = ThreadPoolExecutor(CONCURRENT, thread_name_prefix="argon2")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Hash a new password; also what a verification costs, to spend the same time.

        Raises:
            Overloaded: too many are waiting.
        """
        return await self._run(lambda: self._argon2.hash(_bytes(password)))

    async def verify(self, stored: str, password: str) -> bool:
        """Whether the password is the one that was hashed.

        Raises:
            Overloaded: too many are waiting.
        """
        return await self._run(lambda: self._verify(stored, password))

    def outdated(self, stored: str) -> bool:
        """Whether a hash was made with other parameters than today's."""
        return self._argon2.check_needs_rehash(stored)

    def close(self) -> None:
        """Start no further hash."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._argon2.verify(stored, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise Overloaded(self._waiting, MAX_WAITING)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1


def _bytes(password: str) -> bytes:
    # surrogatepass: a password that is no valid text is wrong, not a fault of ours
    return password.encode(errors="surrogatepass")
