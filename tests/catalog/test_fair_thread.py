import asyncio
import threading

from app.catalog.fair_thread import FairThread
from tests.fakes import PATIENCE_S


class Jobs:
    """Work that is held until told, and who was served in which order."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.order: list[str] = []
        self.thread = FairThread("test")

    def start(self, client: str, name: str) -> asyncio.Task[None]:
        def work() -> None:
            assert self.gate.wait(PATIENCE_S)
            self.order.append(name)

        return asyncio.create_task(self.thread.run(client, work))


async def test_clients_take_turns_however_many_jobs_one_sends():
    jobs = Jobs()
    tasks = [jobs.start("many", f"many {i}") for i in range(20)]
    await asyncio.sleep(0)
    tasks += [jobs.start("ada", "ada"), jobs.start("bob", "bob")]
    await asyncio.sleep(0)
    jobs.gate.set()
    await asyncio.gather(*tasks)
    assert jobs.order[:4] == ["many 0", "many 1", "ada", "bob"]
    assert jobs.order[4:] == [f"many {i}" for i in range(2, 20)]


async def test_a_job_whose_client_went_ends_before_the_next_begins():
    jobs = Jobs()
    gone = jobs.start("gone", "gone")
    waiting = jobs.start("gone", "never begun")
    next_one = jobs.start("ada", "ada")
    await asyncio.sleep(0)
    for task in (gone, waiting):
        task.cancel()
    await asyncio.gather(gone, waiting, return_exceptions=True)
    assert jobs.order == []
    jobs.gate.set()
    await next_one
    assert jobs.order == ["gone", "ada"]
    await jobs.start("ada", "again")
    assert jobs.order[-1] == "again"


async def test_a_turn_that_comes_as_its_client_goes_is_passed_on():
    jobs = Jobs()
    jobs.gate.set()
    tasks = [jobs.start(f"client {i % 7}", str(i)) for i in range(50)]
    for index, task in enumerate(tasks):
        await asyncio.sleep(0)
        if index % 3 == 0:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(PATIENCE_S):
        await jobs.start("last", "last")


async def test_what_the_work_raises_is_raised_and_the_next_job_runs():
    thread = FairThread("test")

    def fail() -> None:
        raise ZeroDivisionError

    results = await asyncio.gather(
        thread.run("a", fail), thread.run("b", lambda: 7), return_exceptions=True
    )
    assert isinstance(results[0], ZeroDivisionError)
    assert results[1] == 7
