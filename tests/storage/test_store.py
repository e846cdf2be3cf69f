"""The store of counts against a real server: shared, away, silent, and back."""

import asyncio
import logging
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.auth.windows import Counts, LocalCounts, Policy, Window, Windows
from app.errors import RateLimited, StorageAway
from app.settings import InvalidSetting
from app.storage.store import SharedStore
from tests.servers.valkey import MISSING, valkey

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


class Told(list[bool]):
    """What a store told of itself."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine answers late: that shall not count as silence."""
    monkeypatch.setattr("app.storage.store.TIMEOUT_S", 3.0)


@pytest.fixture
async def store(told: Told) -> AsyncIterator[SharedStore]:
    store = SharedStore(valkey().url, told=told.append)
    yield store
    await store.close()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def name() -> str:
    """A window's name that no other test has."""
    return uuid4().hex


async def back(window: Window) -> None:
    """Wait until the store is asked again and answers."""
    async with asyncio.timeout(60):
        while True:
            try:
                await window.check("nobody")
            except StorageAway:
                await asyncio.sleep(0.05)
            else:
                return


async def test_both_kinds_of_counts_count_alike(store: SharedStore, name: str) -> None:
    async def story(counts: Counts) -> list[object]:
        told: list[object] = [await counts.add("ada", cost) for cost in (1, 2, 3, 1, 1)]
        told += [(await counts.standing(who)).used for who in ("ada", "bob")]
        told.append(0 < (await counts.standing("ada")).free_in_s <= 60)
        await counts.forget("ada")
        told += [await counts.add("ada", 5), await counts.add("ada", 4), await counts.add("bob", 1)]
        return told

    local = await story(LocalCounts(4, 60))
    assert local == [True, True, False, True, False, 4, 0, True, False, True, True]
    assert await story(store.window(name, 4, 60)) == local


async def test_replicas_count_together(store: SharedStore, name: str) -> None:
    other = SharedStore(valkey().url, told=lambda _: None)
    here, there = (Windows(one).window(name, 10, 60, "requests") for one in (store, other))
    many = [window.count("ada") for window in (here, there) for _ in range(20)]
    ended = await asyncio.gather(*many, return_exceptions=True)
    await other.close()
    assert sum(one is None for one in ended) == 10, "at once, and over both"
    assert sum(isinstance(one, RateLimited) for one in ended) == 30
    with pytest.raises(RateLimited, match=r"more than 10 requests per minute, wait \d+ s"):
        await here.count("ada")


async def test_the_store_holds_no_names(store: SharedStore, name: str) -> None:
    await store.window(name, 1, 60).add("grace@192.0.2.7", 1)
    keys = await store._limiter.storage.bridge.storage.keys(f"*{name}*")
    assert len(keys) == 1
    assert b"grace" not in keys[0], "which no hexadecimal number spells"
    assert b"192." not in keys[0]


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("policy", ["local", "open", "closed"])
async def test_the_policy_holds_while_the_store_is_away_and_ends_with_it(
    store: SharedStore,
    told: Told,
    policy: Policy,
    silent: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "app.storage.store")
    name = uuid4().hex
    window = Windows(store, policy).window(name, 2, 3600, "requests")
    await window.count("ada")
    await window.count("ada")
    server = valkey()
    server.freeze() if silent else server.stop()
    try:
        ended = await asyncio.gather(
            *(window.count("ada") for _ in range(20)), return_exceptions=True
        )
        kinds = {type(one) for one in ended}
        if policy == "local":
            assert sum(one is None for one in ended) == 2, "what this replica counts begins anew"
            assert kinds == {type(None), RateLimited}
        else:
            assert kinds == {type(None) if policy == "open" else StorageAway}
        assert told == [False]
    finally:
        server.thaw() if silent else server.start()
    await back(Windows(store, "closed").window(name, 2, 3600, "requests"))
    assert told == [False, True]
    if silent:
        with pytest.raises(RateLimited):
            await window.count("ada")
    assert [record.getMessage().split()[0] for record in caplog.records] == [
        "store_away",
        "store_back",
    ]


async def test_a_silent_store_keeps_the_event_loop_free_and_is_waited_for_once(
    store: SharedStore, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.store.AWAY_S", 3600.0)
    window = Windows(store, "closed").window(name, 2, 60, "requests")
    await window.count("ada")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    valkey().freeze()
    ticking = asyncio.create_task(tick())
    try:
        with pytest.raises(StorageAway):
            await window.count("ada")
    finally:
        ticking.cancel()
        valkey().thaw()
    assert ticks > 100, "others had their turns while one waited"

    async def question() -> None:
        raise AssertionError("it was asked")

    with pytest.raises(StorageAway):
        await store.ask(question)


@pytest.mark.parametrize("url", ["http://host", "host:6379", "redis://host:port", ""])
def test_an_unusable_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidSetting, match="LLMHOST_STORE_URL: "):
        SharedStore(url, told=lambda _: None)
