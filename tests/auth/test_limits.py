import time

import pytest

from app.auth.limits import LoginAttempts, RateLimit
from app.errors import RateLimited


async def test_the_burst_is_refused_for_a_second_and_costs_nothing_of_the_minute():
    limit = RateLimit(per_minute=60, per_second=3)
    for remaining in (59, 58, 57):
        status = await limit.count("ada")
        assert status is not None
        assert (status.limit, status.remaining) == (60, remaining)
        assert 0 < status.reset - time.time() <= 61
    with pytest.raises(RateLimited, match="more than 3 requests a second") as refused:
        await limit.count("ada")
    assert refused.value.retry_after_s == 1
    status = await limit.status("ada")
    assert status is not None
    assert status.remaining == 57


async def test_the_minute_is_refused_until_its_oldest_request_falls_out():
    limit = RateLimit(per_minute=2, per_second=0)
    await limit.count("ada")
    await limit.count("ada")
    with pytest.raises(RateLimited, match="more than 2 requests a minute") as refused:
        await limit.count("ada")
    assert 58 <= refused.value.retry_after_s <= 61
    await limit.count("bob")


async def test_zero_is_no_limit():
    limit = RateLimit(per_minute=0, per_second=0)
    assert [await limit.count("ada") for _ in range(100)] == [None] * 100
    attempts = LoginAttempts(per_account=0, per_address=0)
    for _ in range(100):
        await attempts.count("ada", "address")
    await attempts.succeeded("ada")


async def test_attempts_count_per_account_from_anywhere_and_per_address_for_anybody():
    attempts = LoginAttempts(per_account=2, per_address=3)
    await attempts.count("ada", "a")
    await attempts.count("ada", "b")
    with pytest.raises(RateLimited):
        await attempts.count("ada", "c")
    await attempts.count("bob", "a")
    await attempts.count("eve", "a")
    with pytest.raises(RateLimited):
        await attempts.count("sue", "a")


async def test_a_right_password_forgets_the_accounts_attempts_not_the_addresses():
    attempts = LoginAttempts(per_account=2, per_address=4)
    for _ in range(4):
        await attempts.count("ada", "a")
        await attempts.succeeded("ada")
    with pytest.raises(RateLimited):
        await attempts.count("ada", "a")
