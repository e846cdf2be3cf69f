"""Give freed memory back to the system.

glibc keeps what is freed below something that is not: of 348 MB with the default model 292 stayed
after it was dropped, 76 once trimmed (bench/LOG.md, 2026-11-22). Linux with glibc alone; elsewhere
nothing happens.
"""

import asyncio
import ctypes
import gc
import logging
import resource
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0
GROWTH_BYTES: Final = 16 << 20
"""Resident memory beyond the least since the last trim, after which there is another one."""
_STATM: Final = Path("/proc/self/statm")


def trim_heap() -> None:
    """Collect what refers to itself, as an engine and its thread do, and trim the heap."""
    gc.collect()
    trim_freed()


async def trim_when_grown() -> None:
    """Trim the heap whenever it has grown; runs until it is cancelled.

    A burst of large requests leaves hundreds of megabytes behind otherwise.
    """
    least = _resident_bytes()
    while _STATM.exists():
        await asyncio.sleep(LOOK_EVERY_S)
        least = min(least, before := _resident_bytes())
        if before - least > GROWTH_BYTES:
            await asyncio.to_thread(trim_freed)
            least = _resident_bytes()
            logger.debug("heap_trimmed before=%d after=%d", before, least)


def trim_freed() -> None:
    """Trim the heap of what has been freed already."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _resident_bytes() -> int:
    if not _STATM.exists():
        return 0
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()
