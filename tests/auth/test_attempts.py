"""The rule of app/auth/attempts.py, part by part and through the routes."""

from collections.abc import Awaitable
from pathlib import Path
from uuid import uuid4

import pytest

from app.auth.attempts import Attempts
from app.errors import RateLimited
from tests.accounts_app import PASSWORD, Server, running

PROXIED = {"trusted_proxies": "127.0.0.1"}
NO_LIMIT = {
    "per_account": 0,
    "per_address": 0,
    "from_new_addresses": 0,
    "registrations_per_address": 0,
}


async def refused(attempt: Awaitable[None]) -> bool:
    try:
        await attempt
    except RateLimited:
        return True
    return False


async def test_an_address_may_try_so_many_passwords_for_whomever():
    attempts = Attempts(**{**NO_LIMIT, "per_address": 3})
    assert [await refused(attempts.count_address("a")) for _ in range(4)] == [False] * 3 + [True]
    assert not await refused(attempts.count_address("b"))


async def test_an_address_may_try_so_many_for_one_account_and_no_other_address_is_touched():
    attempts = Attempts(**{**NO_LIMIT, "per_account": 2})

    async def one(account: str, address: str) -> bool:
        return await refused(attempts.count_account(account, address, known=True))

    assert [await one("ada", "a") for _ in range(3)] == [False, False, True]
    assert not await one("ada", "b")
    assert not await one("bob", "a")
    await attempts.succeeded("ada", "a")
    assert [await one("ada", "a") for _ in range(3)] == [False, False, True]


async def test_strangers_share_what_an_account_grants_them_and_known_addresses_do_not_count():
    attempts = Attempts(**{**NO_LIMIT, "from_new_addresses": 2})

    async def one(address: str, *, known: bool) -> bool:
        return await refused(attempts.count_account("ada", address, known=known))

    assert [await one(address, known=False) for address in "abc"] == [False, False, True]
    assert not any([await one("home", known=True) for _ in range(100)])
    await attempts.succeeded("ada", "home")
    assert await one("d", known=False), "a right password gives strangers nothing"


async def test_a_login_proves_the_password_so_often_and_others_as_often():
    attempts = Attempts(**{**NO_LIMIT, "per_account": 1})
    here, there = uuid4(), uuid4()
    await attempts.count_proof(here)
    assert await refused(attempts.count_proof(here))
    assert not await refused(attempts.count_proof(there))


async def test_zero_is_no_limit():
    attempts = Attempts(**NO_LIMIT)
    login_id = uuid4()
    for _ in range(1000):
        await attempts.count_address("a")
        await attempts.count_account("ada", "a", known=False)
        await attempts.count_proof(login_id)
        await attempts.count_registration("a")


def at(number: int) -> dict[str, str]:
    return {"x-forwarded-for": f"192.0.2.{number}"}


async def guessed(server: Server, name: str, count: int) -> list[int]:
    """Try wrong passwords from as many addresses that the account doesn't know."""
    return [
        (await server.login(name, "wrongpassword", **at(100 + number))).status
        for number in range(count)
    ]


@pytest.mark.parametrize("right", [True, False])
async def test_strangers_do_not_keep_the_owner_out_where_the_owner_has_been(
    tmp_path: Path, right: bool
):
    limits = {"login_attempts_from_new_addresses": 3, "login_attempts_per_account": 10}
    async with running(tmp_path, **PROXIED, **limits) as server:
        await server.register("ada")
        assert (await server.login("ada", **at(1))).status == 200
        # the first stranger's place went to the owner's first login
        assert await guessed(server, "Ada", 6) == [401, 401, 429, 429, 429, 429]
        if right:
            for _ in range(20):
                assert (await server.login("ada", **at(1))).status == 200
        else:
            assert (await server.login("ada", "wrongpassword", **at(1))).status == 401
        answer = await server.login("ada", **at(2))
        assert (answer.status, list(answer.json)) == (429, ["detail"]), "elsewhere it is a stranger"
        assert 0 < int(answer.headers["retry-after"]) <= 3600
    async with running(tmp_path, **PROXIED, **limits) as server:
        assert (await guessed(server, "ada", 4))[-1] == 429, "a restart forgets what was counted"
        assert (await server.login("ada", **at(1))).status == 200, "and not where ada has been"


async def test_unknown_names_run_out_like_known_ones(tmp_path: Path):
    limits = {"login_attempts_from_new_addresses": 3}
    async with running(tmp_path, **PROXIED, **limits) as server:
        await server.register("ada")
        known, unknown = await guessed(server, "ada", 5), await guessed(server, "nobody", 5)
    assert known == unknown == [401] * 3 + [429] * 2


async def test_a_new_password_makes_every_other_address_new(tmp_path: Path):
    limits = {"login_attempts_from_new_addresses": 3}
    async with running(tmp_path, **PROXIED, **limits) as server:
        await server.register("ada")
        token = (await server.login("ada", **at(1))).json["access_token"]
        change = {"current_password": PASSWORD, "new_password": "anotherpassword"}
        answer = await server.ask("POST", "/me/password", change, token=token, headers=at(2))
        assert answer.status == 200
        assert (await guessed(server, "ada", 3))[-1] == 429
        assert (await server.login("ada", "anotherpassword", **at(1))).status == 429
        assert (await server.login("ada", "anotherpassword", **at(2))).status == 200


async def test_nothing_that_strangers_do_hinders_who_holds_a_valid_token(tmp_path: Path):
    limits = {
        "login_attempts_from_new_addresses": 2,
        "login_attempts_per_account": 2,
        "login_attempts_per_address": 4,
    }
    async with running(tmp_path, **limits) as server:  # all of them at the owner's address
        token = await server.token("ada")
        while (await server.login("ada", "wrongpassword")).status != 429:
            pass
        while (await server.login("bob", "wrongpassword")).status != 429:
            pass
        assert (await server.login("ada")).status == 429, "the premise"
        change = {"current_password": PASSWORD, "new_password": "anotherpassword"}
        answer = await server.ask("POST", "/me/password", change, token=token)
        assert answer.status == 200
        token, body = answer.json["access_token"], {"password": "anotherpassword"}
        assert (await server.ask("POST", "/me/delete", body, token=token)).status == 200


async def test_registrations_run_out_for_an_address_and_not_for_another(tmp_path: Path):
    async with running(tmp_path, registrations_per_address=2, **PROXIED) as server:

        async def status(name: str, number: int) -> int:
            body = {"username": name, "password": PASSWORD}
            return (await server.ask("POST", "/register", body, headers=at(number))).status

        assert [await status("ada", 1), await status("ada", 1)] == [200, 400]
        body = {"username": "bob", "password": PASSWORD}
        answer = await server.ask("POST", "/register", body, headers=at(1))
        assert answer.status == 429
        assert answer.json["detail"].startswith("more than 2 registrations per hour, wait ")
        assert 3500 < int(answer.headers["retry-after"]) <= 3600
        assert await status("bob", 2) == 200
    async with running(tmp_path, registrations_per_address=1, registration="closed") as server:
        assert [(await server.register("eve")).status for _ in range(3)] == [403] * 3
