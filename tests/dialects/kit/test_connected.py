import asyncio

import pytest

from app.dialects.kit.connected import ClientGone, while_connected
from tests.dialects.kit.connection import Connection


async def test_work_that_ends_is_returned():
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await while_connected(Connection().receive, work()) == 7


async def test_an_error_of_the_work_is_raised_as_it_is():
    async def work() -> None:
        raise KeyError("a")

    with pytest.raises(KeyError):
        await while_connected(Connection().receive, work())


async def test_when_the_client_goes_the_work_has_stopped_before_the_caller_hears_of_it():
    connection, steps = Connection(), []

    async def work() -> None:
        try:
            connection.gone.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    with pytest.raises(ClientGone):
        await while_connected(connection.receive, work())
    assert steps == ["cleaned up"]


async def test_cancelling_the_caller_cancels_the_work_and_the_watcher():
    before = asyncio.all_tasks()
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    caller = asyncio.create_task(while_connected(Connection().receive, work()))
    await started.wait()
    assert len(asyncio.all_tasks() - before) == 3, "caller, work and watcher must run"
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert asyncio.all_tasks() == before


async def test_the_watcher_is_gone_when_the_work_is_done():
    before = asyncio.all_tasks()
    await while_connected(Connection().receive, asyncio.sleep(0))
    assert asyncio.all_tasks() == before
