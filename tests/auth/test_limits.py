import time

import pytest

from app.auth import windows
from app.auth.limits import RateLimit
from app.auth.windows import LocalCounts, Windows
from app.errors import RateLimited


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return time.time()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(windows, "time", clock)
    return clock


@pytest.mark.usefixtures("clock")
async def test_the_burst_is_refused_for_a_second_and_costs_nothing_of_the_minute():
    limit = RateLimit(per_minute=60, per_second=3)
    for remaining in (59, 58, 57):
        status = await limit.count("ada")
        assert status is not None
        assert (status.limit, status.remaining) == (60, remaining)
        assert 0 < status.reset - time.time() <= 61
    with pytest.raises(RateLimited, match="more than 3 requests per second") as refused:
        await limit.count("ada")
    assert refused.value.retry_after_s == 1
    status = await limit.status("ada")
    assert status is not None
    assert status.remaining == 57


async def test_the_minute_is_refused_until_its_oldest_request_falls_out(clock: Clock):
    limit = RateLimit(per_minute=2, per_second=0)
    await limit.count("ada")
    clock.now_s += 10
    await limit.count("ada")
    with pytest.raises(
        RateLimited, match="more than 2 generations per minute, wait 50 s"
    ) as refused:
        await limit.count("ada")
    assert refused.value.retry_after_s == 50
    await limit.count("bob")
    clock.now_s += 49
    with pytest.raises(RateLimited, match="wait 1 s"):
        await limit.count("ada")
    clock.now_s += 1
    await limit.count("ada")
    with pytest.raises(RateLimited, match="wait 10 s"):
        await limit.count("ada")


@pytest.mark.usefixtures("clock")
async def test_a_refused_minute_costs_nothing_of_the_second():
    limit = RateLimit(per_minute=1, per_second=2)
    await limit.count("ada")
    for _ in range(5):
        with pytest.raises(RateLimited, match="per minute"):
            await limit.count("ada")


async def test_zero_is_no_limit():
    limit = RateLimit(per_minute=0, per_second=0)
    assert [await limit.count("ada") for _ in range(100)] == [None] * 100


async def test_clients_that_are_not_seen_any_more_are_forgotten(clock: Clock):
    counts = LocalCounts(2, 60)
    for number in range(1000):
        assert await counts.add(f"client {number}", 1)
    clock.now_s += 61
    for _ in range(2):
        for number in range(500):
            assert await counts.add(f"new {number}", 1)
    assert len(counts._counted) == 500


async def test_no_more_clients_are_remembered_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(windows, "MAX_CLIENTS", 10)
    counts = LocalCounts(1, 3600)
    for number in range(100):
        assert await counts.add(f"client {number}", 1)
    assert len(counts._counted) == 10
    assert not await counts.add("client 99", 1)


async def test_what_is_forgotten_was_never_counted():
    window = Windows().window("w", 1, 60, "requests")
    await window.count("ada")
    await window.forget("ada")
    await window.forget("nobody")
    await window.count("ada")
    with pytest.raises(RateLimited):
        await window.count("ada")


@pytest.mark.parametrize(
    ("per_minute", "per_second", "everywhere", "limit"),
    [
        (None, None, False, 60),
        (0, None, False, None),
        (5, None, True, 5),
        (None, 3, True, 60),
        (0, 0, False, None),
    ],
)
async def test_a_limit_that_somebody_chose_is_for_every_api(
    per_minute: int | None, per_second: int | None, everywhere: bool, limit: int | None
):
    made = RateLimit(per_minute=per_minute, per_second=per_second)
    assert made.everywhere is everywhere
    status = await made.status("address x")
    assert (None if status is None else status.limit) == limit
