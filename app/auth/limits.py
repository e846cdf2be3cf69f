"""How often a client may generate. Knows no HTTP, but what its headers say."""

import math
import time
from typing import Final

import msgspec

from app.auth.windows import Windows

DOCUMENTED_PER_MINUTE: Final = 60
DOCUMENTED_PER_SECOND: Final = 10
"""LocalLab's document has these."""


class RateStatus(msgspec.Struct, frozen=True):
    """Where a client stands."""

    limit: int
    remaining: int
    reset: int
    """Unix time, in seconds, at which the oldest counted request falls out of the window."""


class RateLimit:
    """So many generations in any minute, so many requests in any second; 0 is no limit."""

    def __init__(
        self,
        *,
        per_minute: int | None,
        per_second: int | None,
        windows: Windows | None = None,
    ) -> None:
        """Count nothing yet; None is what LocalLab's document says.

        A limit that somebody chose is for every API, that of a document for its own.
        """
        self.everywhere = bool(per_minute or per_second)
        """Whether APIs whose documents have no limit have these."""
        per_minute = DOCUMENTED_PER_MINUTE if per_minute is None else per_minute
        per_second = DOCUMENTED_PER_SECOND if per_second is None else per_second
        windows = windows or Windows()
        self._minute = windows.window("minute", per_minute, 60, "generations")
        self._second = windows.window("second", per_second, 1, "requests")

    async def count(self, client: str) -> RateStatus | None:
        """Count one request of a client; None: there is no limit per minute.

        Raises:
            RateLimited: it is one too many, and counts neither for the second nor the minute.
        """
        await self._second.check(client)
        await self._minute.count(client)
        await self._second.count(client)
        return await self.status(client)

    async def count_more(self, client: str, count: int) -> None:
        """Count further generations of a request that is counted already, in its minute alone.

        A request of more generations than a minute may have takes up a whole minute: it would
        never pass otherwise.

        Raises:
            RateLimited: there are too many; none of these is counted.
        """
        if self._minute.limit > 1:
            await self._minute.count(client, min(count, self._minute.limit - 1))

    async def status(self, client: str) -> RateStatus | None:
        """Tell where a client stands, without counting."""
        if not self._minute.limit:
            return None
        used, free_in_s = await self._minute.standing(client)
        reset = math.ceil(time.time() + free_in_s)
        return RateStatus(self._minute.limit, self._minute.limit - used, reset)
