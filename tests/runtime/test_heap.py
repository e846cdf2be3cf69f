"""Memory that was freed goes back to the system by itself."""

import asyncio
import contextlib
import mmap

import pytest

from app.runtime import heap


@pytest.mark.skipif(not heap._STATM.exists(), reason="Linux alone tells resident memory there")
async def test_what_a_burst_leaves_behind_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "LOOK_EVERY_S", 0.01)
    trimmed = asyncio.Event()
    monkeypatch.setattr(heap, "trim_freed", trimmed.set)
    watching = asyncio.create_task(heap.trim_when_grown())
    await asyncio.sleep(0.05)
    assert not trimmed.is_set(), "nothing has grown"
    # not a bytearray: a long test run has freed memory enough to take it from, and nothing grows
    with mmap.mmap(-1, heap.GROWTH_BYTES * 2) as grown:
        for page in range(0, len(grown), mmap.PAGESIZE):
            grown[page] = 1
        async with asyncio.timeout(10):
            await trimmed.wait()
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
