"""What one client sends in great numbers doesn't stop the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import event

from app.auth.passwords import CONCURRENT
from app.storage.database import Database
from tests.accounts_app import PASSWORD, running


@asynccontextmanager
async def statements_of(database: Database) -> AsyncIterator[list[str]]:
    statements: list[str] = []

    def note(_connection, _cursor, statement: str, *_: object) -> None:
        statements.append(statement)

    engine = database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_many_registrations_at_once_make_no_login_wait(tmp_path: Path):
    cost = {"argon2_memory_kib": 16_384, "argon2_time_cost": 2}  # hashes must take some time
    async with running(tmp_path, trusted_proxies="127.0.0.1", **cost) as server:
        await server.register("ada")
        registered: list[int] = []

        async def register(number: int) -> None:
            body = {"username": f"user{number}", "password": PASSWORD}
            headers = {"x-forwarded-for": f"198.51.{number // 256}.{number % 256}"}
            answer = await server.ask("POST", "/register", body, headers=headers)
            registered.append(answer.status)

        flood = [asyncio.create_task(register(number)) for number in range(280)]
        waiting = server.auth.hasher._waiting
        async with asyncio.timeout(60):
            while sum(map(len, waiting.values())) < 40:
                await asyncio.sleep(0)
        before = len(registered)
        assert (await server.login("ada")).status == 200
        passed = len(registered) - before
        assert len(registered) < 200, "the premise: most of them still wait"
        assert set(registered) <= {200}
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
    # those that were being hashed when the login came, and what was written meanwhile
    assert passed <= 10 * CONCURRENT, f"{passed} registrations passed the login"


async def test_a_refresh_that_changes_nothing_writes_nothing(tmp_path: Path):
    async with running(tmp_path) as server:
        await server.register("ada")
        refresh = {"refresh_token": (await server.login("ada")).json["refresh_token"]}
        async with (
            server.database.write(),  # nobody else can write meanwhile
            statements_of(server.database) as statements,
        ):
            answers = [await server.ask("POST", "/refresh", refresh) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert statements
    assert not [one for one in statements if not one.startswith(("SELECT", "BEGIN"))]


async def test_logins_of_one_user_do_not_pile_up(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("app.auth.logins.MAX_LOGINS", 3)
    async with running(tmp_path) as server:
        await server.token("bob")
        await server.register("ada")
        tokens = [(await server.login("ada")).json["access_token"] for _ in range(5)]
        statuses = [(await server.ask("GET", "/me", token=token)).status for token in tokens]
        assert statuses == [401, 401, 200, 200, 200], "the oldest are ended"
