"""How often: generations of one client, and attempts to sign in.

Counts in this process's memory. Knows no HTTP, but what its headers say.
"""

import math
import time

import msgspec
from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from app.errors import RateLimited


class RateStatus(msgspec.Struct, frozen=True):
    """Where a client stands."""

    limit: int
    remaining: int
    reset: int
    """Unix time, in seconds, at which the oldest counted request falls out of the window."""


class RateLimit:
    """So many in any minute, and so many in any second; 0 is no limit.

    Moving windows, not fixed ones: at the border of two fixed minutes twice as many pass.
    """

    def __init__(self, *, per_minute: int, per_second: int) -> None:
        self._minute = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._second = RateLimitItemPerSecond(per_second) if per_second else None
        self._windows = MovingWindowRateLimiter(MemoryStorage())

    async def count(self, client: str) -> RateStatus | None:
        """Count one request of a client; None: there is no limit a minute to speak of.

        Raises:
            RateLimited: it is one too many.
        """
        # The second first: a request that it refuses costs nothing of the minute.
        for item in (self._second, self._minute):
            if item is not None and not await self._windows.hit(item, client):
                raise await _refusal(self._windows, item, client, "requests")
        return await self.status(client)

    async def count_more(self, client: str, count: int) -> None:
        """Count further generations of a request that is counted already, in its minute alone.

        A request of more generations than a minute may have takes up a whole minute: it would
        never pass else.

        Raises:
            RateLimited: there are too many; none of these is counted.
        """
        if self._minute is None:
            return
        cost = min(count, self._minute.amount - 1)
        if cost and not await self._windows.hit(self._minute, client, cost=cost):
            raise await _refusal(self._windows, self._minute, client, "generations")

    async def status(self, client: str) -> RateStatus | None:
        """Where a client stands, without counting."""
        if self._minute is None:
            return None
        stats = await self._windows.get_window_stats(self._minute, client)
        return RateStatus(
            self._minute.amount, max(0, stats.remaining), math.ceil(max(stats.reset_time, 0))
        )


class LoginAttempts:
    """Wrong passwords for one name, and attempts from one address, a minute; 0 is no limit."""

    def __init__(self, *, per_account: int, per_address: int) -> None:
        self._account = RateLimitItemPerMinute(per_account) if per_account else None
        self._address = RateLimitItemPerMinute(per_address) if per_address else None
        self._windows = MovingWindowRateLimiter(MemoryStorage())

    async def count(self, account: str, address: str) -> None:
        """Count an attempt, before the password is looked at: many may come at once.

        Raises:
            RateLimited: it is one too many, whether or not there is such an account.
        """
        for item, key in ((self._address, f"address {address}"), (self._account, account)):
            if item is not None and not await self._windows.hit(item, key):
                raise await _refusal(self._windows, item, key, "attempts to sign in")

    async def succeeded(self, account: str) -> None:
        """Forget an account's attempts: its password was right."""
        if self._account is not None:
            await self._windows.clear(self._account, account)


async def _refusal(
    windows: MovingWindowRateLimiter, item: RateLimitItem, key: str, what: str
) -> RateLimited:
    stats = await windows.get_window_stats(item, key)
    seconds = max(1, math.ceil(stats.reset_time - time.time()))
    period = "minute" if item.get_expiry() == 60 else "second"
    return RateLimited(f"more than {item.amount} {what} a {period}, wait {seconds} s", seconds)
