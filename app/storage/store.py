"""The store that replicas share: a Valkey or Redis server with moving windows of counts.

Never waits longer than `TIMEOUT_S`. When it does not answer, `StorageAway` says so at once for
`AWAY_S`; then one request tries again. Keys hold hashes of who is counted, never names or
addresses. Windows take the replicas' clocks, which therefore have to agree. Knows nothing of what
is counted.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.errors import StorageAway
from app.settings import InvalidSetting
from app.storage.standing import Standing

logger = logging.getLogger(__name__)

T = TypeVar("T")

TIMEOUT_S: Final = 0.5
AWAY_S: Final = 1.0
CONNECTIONS: Final = 16
"""Connections of one process; a count takes one for a fraction of a millisecond."""
SCHEMES: Final = ("redis", "rediss", "unix", "valkey", "valkeys")


class SharedStore:
    """One server of counts, and whether it answers."""

    def __init__(self, url: str, *, told: Callable[[bool], None]) -> None:
        """Connect to nothing yet.

        Args:
            url: `redis://[:password@]host[:port][/number]`, or with another of `SCHEMES`.
            told: called with whether the store answers, whenever that changes.

        Raises:
            InvalidSetting: the URL is none of these.
        """
        scheme, colon, rest = url.partition("://")
        if not colon or scheme not in SCHEMES:
            raise InvalidSetting(f"LLMHOST_STORE_URL: expected {', '.join(SCHEMES)}://…")
        try:
            self._pool = BlockingConnectionPool.from_url(
                f"{scheme.replace('valkey', 'redis')}://{rest}",
                max_connections=CONNECTIONS,
                timeout=TIMEOUT_S,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise InvalidSetting(f"LLMHOST_STORE_URL: {error}") from error
        self._limiter = MovingWindowRateLimiter(
            RedisStorage(
                "async+redis://",
                implementation="redispy",
                key_prefix="llmhost",
                connection_pool=self._pool,  # type: ignore[arg-type] # an option like any other
            )
        )
        self._told = told
        self._is_away = False
        self._try_again_s = 0.0

    def window(self, name: str, limit: int, period_s: int) -> "StoredWindow":
        """A window of the store; those of the same name, limit and period are the same one."""
        return StoredWindow(self, self._limiter, name, RateLimitItemPerSecond(limit, period_s))

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """Ask the store something.

        Raises:
            StorageAway: it does not answer, or did not a moment ago.
        """
        if self._is_away:
            now_s = time.monotonic()
            if now_s < self._try_again_s:
                raise StorageAway("the store of limits")
            self._try_again_s = now_s + AWAY_S  # the others don't wait for this attempt
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await question()
        except (RedisError, OSError, TimeoutError) as error:
            self._try_again_s = time.monotonic() + AWAY_S
            if not self._is_away:
                self._is_away = True
                self._told(False)
                logger.error("store_away reason=%r", str(error) or type(error).__name__)  # noqa: TRY400 # expected, and its stack says nothing
            raise StorageAway("the store of limits") from error
        if self._is_away:
            self._is_away = False
            self._told(True)
            logger.info("store_back")
        return answer

    async def close(self) -> None:
        """Give the connections back."""
        await self._pool.disconnect()


class StoredWindow:
    """How often each client was counted, by all replicas together; `StorageAway` where unknown."""

    def __init__(
        self,
        store: SharedStore,
        limiter: MovingWindowRateLimiter,
        name: str,
        item: RateLimitItemPerSecond,
    ) -> None:
        self._store = store
        self._limiter = limiter
        self._name = name
        self._item = item

    async def add(self, client: str, cost: int) -> bool:
        """Count `cost` times, unless that is more than the limit; whether it was counted."""
        key = _key(client)
        return await self._store.ask(
            lambda: self._limiter.hit(self._item, self._name, key, cost=cost)
        )

    async def standing(self, client: str) -> Standing:
        """Tell where a client stands."""
        key = _key(client)
        reset_s, remaining = await self._store.ask(
            lambda: self._limiter.get_window_stats(self._item, self._name, key)
        )
        used = self._item.amount - remaining
        return Standing(used, max(0.0, reset_s - time.time()) if used else 0.0)

    async def forget(self, client: str) -> None:
        """Take back all that was counted of a client."""
        key = _key(client)
        await self._store.ask(lambda: self._limiter.clear(self._item, self._name, key))


def _key(client: str) -> str:
    return hashlib.blake2b(client.encode(), digest_size=16).hexdigest()
