"""Memory that was freed goes back to the system by itself."""

import asyncio
import contextlib

import pytest

from app.runtime import heap


@pytest.mark.skipif(not heap._STATM.exists(), reason="Linux alone tells resident memory there")
async def test_what_a_burst_leaves_behind_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "LOOK_EVERY_S", 0.01)
    trimmed = asyncio.Event()
    monkeypatch.setattr(heap, "_trim", trimmed.set)
    watching = asyncio.create_task(heap.trim_when_grown())
    await asyncio.sleep(0.05)
    assert not trimmed.is_set(), "nothing has grown"
    grown = bytearray(heap.GROWTH_BYTES * 2)
    grown[::4096] = b"x" * len(grown[::4096])
    async with asyncio.timeout(10):
        await trimmed.wait()
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    assert grown
