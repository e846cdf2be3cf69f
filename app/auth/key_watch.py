"""Follow the file of signing secrets while the server runs, so that they rotate without a restart.

Knows nothing of tokens.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from app.auth.keys import KeyRing, read_keys
from app.routine import Routine
from app.settings import InvalidSetting

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0


class KeyWatch(Routine):
    """Reads the file again and again, and tells of a ring that differs from the last one."""

    def __init__(self, file: Path, ring: KeyRing, changed: Callable[[KeyRing], None]) -> None:
        self._file = file
        self._ring = ring
        self._changed = changed
        self._is_readable = True

    async def look(self) -> None:
        """Read the file once; while it can't be used, the secrets before stay."""
        try:
            ring = await asyncio.to_thread(read_keys, self._file)
        except (OSError, InvalidSetting) as error:
            if self._is_readable:
                self._is_readable = False
                logger.error("signing_keys_unreadable reason=%r", str(error))  # noqa: TRY400 # its stack says nothing
            return
        self._is_readable = True
        if ring != self._ring:
            self._ring = ring
            self._changed(ring)
            logger.info("signing_keys signing=%s count=%d", ring.signing_id, len(ring))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()
