import asyncio
import contextlib

import msgspec
import pytest

from app.contract.generation import Event, Finished, GenerationRequest
from app.contract.sampling import SamplingParams
from app.dialects.kit.framing import TextEvents
from app.dialects.kit.streaming import ClientGone, Reply, while_connected
from app.errors import EngineFailure
from tests.fakes import FakeService, Step, byte_ids


class Connection:
    """A client that goes when told to; counts how often it is asked."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.rest = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive(self) -> dict:
        if self.rest:
            return self.rest.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}


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


def asks() -> GenerationRequest:
    return GenerationRequest(prompt="Hi", sampling=SamplingParams())


class Asking:
    """As much of a request as a reply looks at."""

    def __init__(self) -> None:
        self.receive = Connection().receive


async def test_one_failure_is_raised_and_closes_the_others():
    turns = iter([asyncio.Event(), EngineFailure("broke"), asyncio.Event()])
    service = FakeService(script=lambda _: ["x", next(turns)])
    generations = await service.start_batch([asks()] * 3)
    with pytest.raises(EngineFailure, match="broke"):
        await Reply(Asking(), *generations).whole()
    assert service.engine.in_use == 0


@pytest.mark.parametrize("way", ["whole", "feed", "stream"])
async def test_cancelling_who_waits_frees_every_slot(way):
    service = FakeService(asyncio.Event())
    reply = Reply(Asking(), *await service.start_batch([asks()] * 3))
    work = {
        "whole": reply.whole,
        "feed": lambda: reply.feed(lambda *_: None),
        "stream": lambda: reply.stream(TextEvents()),
    }[way]
    task = asyncio.create_task(work())
    await asyncio.sleep(0)  # a task that has not begun can close nothing
    assert service.engine.in_use == 3
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert service.engine.in_use == 0


async def test_events_of_several_come_in_order_of_time_with_their_index():
    gate = asyncio.Event()

    def script(request) -> list[Step]:
        if list(request.prompt_ids) == byte_ids("first"):
            return [gate, "1"]
        return ["2"]

    service = FakeService(script=script)
    requests = [msgspec.structs.replace(asks(), prompt=text) for text in ("first", "second")]
    seen = []

    def take(index: int, event: Event) -> None:
        seen.append((index, getattr(event, "text", "end")))
        if (index, event.__class__) == (1, Finished):
            gate.set()  # the second one ends before the first one begins

    await Reply(Asking(), *await service.start_batch(requests)).feed(take)
    assert seen == [(1, "2"), (1, "end"), (0, "1"), (0, "end")]
