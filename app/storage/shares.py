"""Let each client use something only so many times at once; the rest of its uses wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Shares:
    """A share for each client, all of one size."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._places: dict[str, asyncio.Semaphore] = {}
        self._uses: dict[str, int] = {}
        """By client, running and waiting."""

    @asynccontextmanager
    async def of(self, client: str) -> AsyncIterator[None]:
        """Wait until a client uses less than its share, and use it."""
        places = self._places.setdefault(client, asyncio.Semaphore(self._size))
        self._uses[client] = self._uses.get(client, 0) + 1
        try:
            async with places:
                yield
        finally:
            self._uses[client] -= 1
            if not self._uses[client]:
                del self._uses[client], self._places[client]
