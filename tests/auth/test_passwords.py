import asyncio
import time

import pytest

from app.auth.passwords import CONCURRENT, MAX_WAITING, PasswordHasher
from app.errors import Overloaded
from app.settings import Settings


async def test_a_password_verifies_and_another_does_not():
    hasher = PasswordHasher(memory_kib=64, time_cost=1)
    stored = await hasher.hash("correct horse")
    assert stored.startswith("$argon2id$")
    assert await hasher.verify(stored, "correct horse")
    assert not await hasher.verify(stored, "correct horsf")
    assert not await hasher.verify("no hash at all", "correct horse")
    assert not await hasher.verify(stored, "\ud800")


async def test_a_hash_of_other_parameters_is_outdated_and_still_verifies():
    old, new = (
        PasswordHasher(memory_kib=64, time_cost=1),
        PasswordHasher(memory_kib=128, time_cost=1),
    )
    stored = await old.hash("correct horse")
    assert not old.outdated(stored)
    assert new.outdated(stored)
    assert await new.verify(stored, "correct horse")


async def test_default_parameters_are_the_second_recommendation_of_rfc_9106():
    defaults = Settings()
    hasher = PasswordHasher(
        memory_kib=defaults.argon2_memory_kib, time_cost=defaults.argon2_time_cost
    )
    assert (await hasher.hash("x")).startswith("$argon2id$v=19$m=65536,t=3,p=4$")


async def test_the_loop_goes_on_while_passwords_are_hashed():
    hasher = PasswordHasher(memory_kib=65536, time_cost=3)
    hashing = asyncio.gather(*(hasher.hash("x") for _ in range(4)))
    longest = ticks = 0.0
    while not hashing.done():
        before = time.perf_counter()
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - before)
        ticks += 1
    await hashing
    assert ticks > 10, "the loop must have run or this proves nothing"
    assert longest < 0.2, f"the loop stood for {longest:.3f} s"


async def test_no_more_than_the_bound_hash_at_once_and_beyond_the_queue_is_refused():
    hasher = PasswordHasher(memory_kib=64, time_cost=1)
    running = most = 0

    def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.002)
        running -= 1

    tasks = [asyncio.create_task(hasher._run(work)) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await hasher.hash("x")
    await asyncio.gather(*tasks)
    assert most == CONCURRENT
    assert await hasher.hash("x")
