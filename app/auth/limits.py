"""How often a client may generate, and the moving windows that such limits are counted in.

Counts in this process's memory. Knows no HTTP, but what its headers say.
"""

import math
import time
from bisect import bisect_right
from collections import OrderedDict
from typing import Final

import msgspec

from app.errors import RateLimited

MAX_CLIENTS: Final = 100_000
"""Clients that one window remembers; beyond it, the least recently counted are forgotten."""
DOCUMENTED_PER_MINUTE: Final = 60
DOCUMENTED_PER_SECOND: Final = 10
"""LocalLab's document has these."""
_PERIODS: Final = {1: "second", 60: "minute", 3600: "hour"}


class RateStatus(msgspec.Struct, frozen=True):
    """Where a client stands."""

    limit: int
    remaining: int
    reset: int
    """Unix time, in seconds, at which the oldest counted request falls out of the window."""


class Window:
    """How often each client was counted in the last second, minute or hour; 0 is no limit.

    It moves: at the border of two fixed minutes twice as many would pass.
    """

    def __init__(self, limit: int, period_s: int, what: str) -> None:
        self.limit = limit
        self._period_s = period_s
        self._what = what
        self._counted: OrderedDict[str, list[float]] = OrderedDict()
        """Client → its times, the oldest first; the client that was counted last is the last."""

    def check(self, client: str, cost: int = 1) -> None:
        """Refuse a client that has less than `cost` left, without counting.

        Raises:
            RateLimited: so many more would be too many.
        """
        if self.limit and self.used(client) + cost > self.limit:
            period, seconds = _PERIODS[self._period_s], max(1, math.ceil(self.free_in_s(client)))
            raise RateLimited(
                f"more than {self.limit} {self._what} per {period}, wait {seconds} s", seconds
            )

    def count(self, client: str, cost: int = 1) -> None:
        """Count `cost` times.

        Raises:
            RateLimited: it is too many; nothing is counted.
        """
        self.check(client, cost)
        if not self.limit:
            return
        self._counted.setdefault(client, []).extend([time.monotonic()] * cost)
        self._counted.move_to_end(client)
        # Two at a time shrink what one can grow, and cost every count the same.
        for _ in range(2):
            first, times = next(iter(self._counted.items()))
            if len(self._counted) <= MAX_CLIENTS and not self._is_over(times[-1]):
                break
            del self._counted[first]

    def forget(self, client: str) -> None:
        """Take back all that was counted of a client."""
        self._counted.pop(client, None)

    def used(self, client: str) -> int:
        """Count how often a client is in the window."""
        times = self._counted.get(client)
        if times is None:
            return 0
        del times[: bisect_right(times, time.monotonic() - self._period_s)]
        if not times:
            del self._counted[client]
        return len(times)

    def free_in_s(self, client: str) -> float:
        """Seconds until a client's oldest count leaves the window; 0: it has none."""
        times = self._counted.get(client)
        return max(0.0, times[0] + self._period_s - time.monotonic()) if times else 0.0

    def _is_over(self, counted_s: float) -> bool:
        return counted_s <= time.monotonic() - self._period_s


class RateLimit:
    """So many generations in any minute, so many requests in any second; 0 is no limit."""

    def __init__(self, *, per_minute: int | None, per_second: int | None) -> None:
        """Count nothing yet; None is what LocalLab's document says.

        A limit that somebody chose is for every API, that of a document for its own.
        """
        self.everywhere = bool(per_minute or per_second)
        """Whether APIs whose documents have no limit have these."""
        per_minute = DOCUMENTED_PER_MINUTE if per_minute is None else per_minute
        per_second = DOCUMENTED_PER_SECOND if per_second is None else per_second
        self._minute = Window(per_minute, 60, "generations")
        self._second = Window(per_second, 1, "requests")

    async def count(self, client: str) -> RateStatus | None:
        """Count one request of a client; None: there is no limit per minute.

        Raises:
            RateLimited: it is one too many, and counts neither for the second nor the minute.
        """
        self._second.check(client)
        self._minute.count(client)
        self._second.count(client)
        return await self.status(client)

    async def count_more(self, client: str, count: int) -> None:
        """Count further generations of a request that is counted already, in its minute alone.

        A request of more generations than a minute may have takes up a whole minute: it would
        never pass otherwise.

        Raises:
            RateLimited: there are too many; none of these is counted.
        """
        if self._minute.limit > 1:
            self._minute.count(client, min(count, self._minute.limit - 1))

    async def status(self, client: str) -> RateStatus | None:
        """Tell where a client stands, without counting."""
        if not self._minute.limit:
            return None
        used = self._minute.used(client)
        reset = math.ceil(time.time() + self._minute.free_in_s(client))
        return RateStatus(self._minute.limit, self._minute.limit - used, reset)
