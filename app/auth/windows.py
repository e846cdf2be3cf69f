"""The moving windows that limits are counted in: of this process, or of all replicas.

They move: at the border of two fixed minutes twice as many would pass. Knows no HTTP.
"""

import math
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar

from app.errors import RateLimited, StorageAway
from app.storage.standing import Standing

if TYPE_CHECKING:
    from app.storage.store import SharedStore

T = TypeVar("T")

MAX_CLIENTS: Final = 100_000
"""Clients that one window remembers; beyond it, the least recently counted are forgotten."""
_PERIODS: Final = {1: "second", 60: "minute", 3600: "hour"}
Policy = Literal["local", "open", "closed"]
"""What holds while the store is away: each replica's own counts, no limits, or no entry."""


class Counts(Protocol):
    """How often each client was counted in the last second, minute or hour."""

    async def add(self, client: str, cost: int) -> bool:
        """Count `cost` times, unless that is more than the limit; whether it was counted."""
        ...

    async def standing(self, client: str) -> Standing:
        """Tell where a client stands."""
        ...

    async def forget(self, client: str) -> None:
        """Take back all that was counted of a client."""
        ...


class LocalCounts:
    """Counts in this process's memory: a restart forgets them."""

    def __init__(self, limit: int, period_s: int) -> None:
        self._limit = limit
        self._period_s = period_s
        self._counted: OrderedDict[str, list[float]] = OrderedDict()
        """Client → its times, the oldest first; the client that was counted last is the last."""

    async def add(self, client: str, cost: int) -> bool:
        """Count `cost` times, unless that is more than the limit; whether it was counted."""
        if (await self.standing(client)).used + cost > self._limit:
            return False
        self._counted.setdefault(client, []).extend([time.monotonic()] * cost)
        self._counted.move_to_end(client)
        # Two at a time shrink what one can grow, and cost every count the same.
        for _ in range(2):
            first, times = next(iter(self._counted.items()))
            if len(self._counted) <= MAX_CLIENTS and not self._is_over(times[-1]):
                break
            del self._counted[first]
        return True

    async def standing(self, client: str) -> Standing:
        """Tell where a client stands."""
        now_s = time.monotonic()
        times = self._counted.get(client, [])
        del times[: bisect_right(times, now_s - self._period_s)]
        if not times:
            self._counted.pop(client, None)
            return Standing(0, 0.0)
        return Standing(len(times), max(0.0, times[0] + self._period_s - now_s))

    async def forget(self, client: str) -> None:
        """Take back all that was counted of a client."""
        self._counted.pop(client, None)

    def _is_over(self, counted_s: float) -> bool:
        return counted_s <= time.monotonic() - self._period_s


class NoCounts:
    """Counts nothing and lets everybody pass."""

    async def add(self, client: str, cost: int) -> bool:  # noqa: ARG002 # whoever it is
        """Let it pass."""
        return True

    async def standing(self, client: str) -> Standing:  # noqa: ARG002
        """Nobody was counted."""
        return Standing(0, 0.0)

    async def forget(self, client: str) -> None:
        """There is nothing to forget."""


class SharedCounts:
    """Counts of all replicas in a store; while it is away, another rule holds."""

    def __init__(self, stored: Counts, otherwise: Counts | None) -> None:
        """Count nothing yet; without another rule, whoever would be counted is turned away."""
        self._stored = stored
        self._otherwise = otherwise

    async def add(self, client: str, cost: int) -> bool:
        """Count `cost` times, unless that is more than the limit; whether it was counted."""
        return await self._ask(lambda counts: counts.add(client, cost))

    async def standing(self, client: str) -> Standing:
        """Tell where a client stands."""
        return await self._ask(lambda counts: counts.standing(client))

    async def forget(self, client: str) -> None:
        """Take back all that was counted of a client."""
        await self._ask(lambda counts: counts.forget(client))

    async def _ask(self, ask: Callable[[Counts], Awaitable[T]]) -> T:
        try:
            return await ask(self._stored)
        except StorageAway:
            if self._otherwise is None:
                raise
            return await ask(self._otherwise)


class Window:
    """A limit on how often each client may come; 0 is no limit."""

    def __init__(self, counts: Counts, limit: int, period_s: int, what: str) -> None:
        self.limit = limit
        self._counts = counts
        self._period_s = period_s
        self._what = what

    async def check(self, client: str, cost: int = 1) -> None:
        """Refuse a client that has less than `cost` left, without counting.

        Raises:
            RateLimited: so many more would be too many.
            StorageAway: nobody knows, and the policy is `closed`.
        """
        if self.limit and (await self._counts.standing(client)).used + cost > self.limit:
            raise await self._refusal(client)

    async def count(self, client: str, cost: int = 1) -> None:
        """Count `cost` times.

        Raises:
            RateLimited: it is too many; nothing is counted.
            StorageAway: nobody knows, and the policy is `closed`.
        """
        if self.limit and not await self._counts.add(client, cost):
            raise await self._refusal(client)

    async def forget(self, client: str) -> None:
        """Take back all that was counted of a client."""
        if self.limit:
            await self._counts.forget(client)

    async def standing(self, client: str) -> Standing:
        """Tell where a client stands, without counting."""
        return await self._counts.standing(client)

    async def _refusal(self, client: str) -> RateLimited:
        free_in_s = (await self._counts.standing(client)).free_in_s
        period, seconds = _PERIODS[self._period_s], max(1, math.ceil(free_in_s))
        return RateLimited(
            f"more than {self.limit} {self._what} per {period}, wait {seconds} s", seconds
        )


class Windows:
    """Makes windows as the settings say: of this process, or of a store with a policy."""

    def __init__(self, store: "SharedStore | None" = None, policy: Policy = "local") -> None:
        self._store = store
        self._policy = policy

    def window(self, name: str, limit: int, period_s: int, what: str) -> Window:
        """Make a window of so many `what` in so many seconds; `name` is its own in the store."""
        local = LocalCounts(limit, period_s)
        if self._store is None or not limit:
            return Window(local, limit, period_s, what)
        rules: dict[Policy, Counts | None] = {"local": local, "open": NoCounts(), "closed": None}
        stored = self._store.window(name, limit, period_s)
        counts = SharedCounts(stored, rules[self._policy])
        return Window(counts, limit, period_s, what)
