import asyncio
import contextlib

import msgspec
import pytest

from app.contract.generation import Event, Finished, GenerationRequest
from app.contract.sampling import SamplingParams
from app.dialects.kit.framing import TextEvents
from app.dialects.kit.streaming import Reply
from app.errors import EngineFailure, Unsupported
from tests.dialects.kit.connection import Connection
from tests.fakes import FakeService, Step, byte_ids


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


async def test_a_failure_before_the_answer_frees_every_slot():
    service = FakeService(asyncio.Event())
    reply = Reply(Asking(), *await service.start_batch([asks()] * 3))
    assert service.engine.in_use == 3
    with pytest.raises(Unsupported):
        async with reply.guarded():
            raise Unsupported("think", True, "it doesn't")
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
