import asyncio
import threading
import time

import pytest

from app.auth.passwords import CONCURRENT, MAX_WAITING, PasswordHasher, Urgency
from app.errors import Overloaded
from app.settings import Settings
from tests.fakes import until

LOGIN = Urgency.SIGN_IN


async def test_a_password_verifies_and_another_does_not():
    hasher = PasswordHasher(memory_kib=64, time_cost=1)
    stored = await hasher.hash("correct horse", LOGIN)
    assert stored.startswith("$argon2id$")
    assert await hasher.verify(stored, "correct horse", LOGIN)
    assert not await hasher.verify(stored, "correct horsf", LOGIN)
    assert not await hasher.verify("no hash at all", "correct horse", LOGIN)
    assert not await hasher.verify(stored, "\ud800", LOGIN)


async def test_a_hash_of_other_parameters_is_outdated_and_still_verifies():
    old, new = (
        PasswordHasher(memory_kib=64, time_cost=1),
        PasswordHasher(memory_kib=128, time_cost=1),
    )
    stored = await old.hash("correct horse", LOGIN)
    assert not old.outdated(stored)
    assert new.outdated(stored)
    assert await new.verify(stored, "correct horse", LOGIN)


async def test_default_parameters_are_the_second_recommendation_of_rfc_9106():
    defaults = Settings()
    hasher = PasswordHasher(
        memory_kib=defaults.argon2_memory_kib, time_cost=defaults.argon2_time_cost
    )
    assert (await hasher.hash("x", LOGIN)).startswith("$argon2id$v=19$m=65536,t=3,p=4$")


async def test_the_loop_goes_on_while_passwords_are_hashed():
    longest = float("inf")
    for _ in range(5):  # a busy machine delays the loop too, and not each time
        longest = min(longest, await longest_turn_while_hashing())
        if longest < 0.2:
            break
    assert longest < 0.2, f"the loop stood for {longest:.3f} s each time"


async def longest_turn_while_hashing() -> float:
    hasher = PasswordHasher(memory_kib=65536, time_cost=3)
    hashing = asyncio.gather(*(hasher.hash("x", LOGIN) for _ in range(4)))
    longest = ticks = 0.0
    while not hashing.done():
        before = time.perf_counter()
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - before)
        ticks += 1
    await hashing
    assert ticks > 10, "the loop must have run or this proves nothing"
    return longest


class Bench:
    """Work that waits to be let go, and who was worked for in which order."""

    def __init__(self) -> None:
        self.hasher = PasswordHasher(memory_kib=64, time_cost=1)
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._go_on = threading.Semaphore(0)

    async def put(self, name: str, urgency: Urgency) -> asyncio.Task[None]:
        def work() -> None:
            self.order.append(name)
            self._go_on.acquire()

        self.tasks.append(asyncio.create_task(self.hasher.run(work, urgency)))
        await asyncio.sleep(0)
        return self.tasks[-1]

    async def fill(self) -> None:
        """Keep every thread busy."""
        for number in range(CONCURRENT):
            await self.put(f"running {number}", Urgency.REGISTRATION)
        await until(lambda: len(self.order) == CONCURRENT)

    async def finish(self) -> list[str]:
        """Let everything go on; returns who came after `fill`."""
        for _ in self.tasks:
            self._go_on.release()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        return self.order[CONCURRENT:]

    async def one_more(self, number: int) -> None:
        """Let one piece of work end, and wait until the `number`th has begun."""
        self._go_on.release()
        await until(lambda: len(self.order) == CONCURRENT + number)


async def test_the_most_urgent_is_next_and_equals_are_in_order():
    bench = Bench()
    await bench.fill()
    for number in range(3):
        await bench.put(f"registration {number}", Urgency.REGISTRATION)
        await bench.put(f"login {number}", Urgency.SIGN_IN)
        await bench.put(f"owner {number}", Urgency.OWNER)
    for number in range(9):
        await bench.one_more(number + 1)
    order = await bench.finish()
    kinds = ("owner", "login", "registration")
    assert order == [f"{kind} {number}" for kind in kinds for number in range(3)]


async def test_a_full_queue_of_registrations_refuses_no_login():
    bench = Bench()
    await bench.fill()
    for number in range(MAX_WAITING):
        await bench.put(f"registration {number}", Urgency.REGISTRATION)
    with pytest.raises(Overloaded, match=f"{MAX_WAITING} requests are running or waiting"):
        await bench.hasher.hash("x", Urgency.REGISTRATION)
    login = await bench.put("login", Urgency.SIGN_IN)
    assert not login.done()
    await bench.one_more(1)
    assert bench.order[CONCURRENT] == "login"
    assert len(await bench.finish()) == MAX_WAITING + 1
    assert await bench.hasher.hash("x", Urgency.REGISTRATION)


async def test_who_is_cancelled_leaves_the_queue_and_takes_no_thread_along():
    bench = Bench()
    await bench.fill()
    waiting = await bench.put("gone", Urgency.SIGN_IN)
    for task in (waiting, bench.tasks[0]):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await bench.put("login", Urgency.SIGN_IN)
    await asyncio.sleep(0)
    assert len(bench.order) == CONCURRENT, "the cancelled work still has its thread"
    await bench.one_more(1)
    assert bench.order[CONCURRENT:] == ["login"]
    await bench.finish()
    for _ in range(2 * CONCURRENT):
        assert await bench.hasher.hash("x", LOGIN)


async def test_a_turn_that_comes_to_somebody_who_has_gone_is_not_lost():
    bench = Bench()
    await bench.fill()
    gone = await bench.put("gone", Urgency.OWNER)
    bench.hasher._give_back()  # one more than there are threads: it is given, and not yet taken
    gone.cancel()
    assert await bench.finish() == []
    assert gone.cancelled()
    assert bench.hasher._free == CONCURRENT + 1
