"""What a server does beside its requests, from its start to its end. Knows nothing of it."""

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress


class Routine(ABC):
    """A task of the server's own."""

    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop after the step that is under way; nothing happens before the start."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @abstractmethod
    async def _run(self) -> None:
        """Do it until it is cancelled."""
