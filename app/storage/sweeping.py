"""Delete what has expired: at the start, and then once per hour. Knows nothing of what that is."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from app.routine import Routine
from app.storage.database import Database, DatabaseFailure

logger = logging.getLogger(__name__)

EVERY_S: Final = 3600.0
Sweep = Callable[[AsyncSession], Awaitable[int]]
"""Deletes a few rows that have expired and says how many; 0: there were none left."""


class Sweeper(Routine):
    """A task that sweeps."""

    def __init__(self, database: Database, *sweeps: Sweep) -> None:
        self._database = database
        self._sweeps = sweeps

    async def sweep(self) -> None:
        """Delete all that has expired; others write between two transactions."""
        for sweep in self._sweeps:
            deleted = 1
            while deleted:
                async with self._database.write() as session:
                    deleted = await sweep(session)

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep()
            except DatabaseFailure:
                logger.exception("sweep_failed next_in_s=%g", EVERY_S)
            await asyncio.sleep(EVERY_S)
