"""What several processes on one PostgreSQL need: one migration, few connections, a restart."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import URL, select, text
from sqlalchemy.exc import ProgrammingError

from app.errors import StorageAway
from app.storage.database import Database
from app.storage.models import User
from tests.accounts_app import PASSWORD, running
from tests.databases import ON_POSTGRES, empty_database, postgres_database
from tests.servers.postgres import postgres

pytestmark = ON_POSTGRES

MIGRATING = """
import asyncio, os, sys
from pathlib import Path
from app.storage.database import Database, database_url
from app.storage.models import User  # takes long: once, before the processes part

async def migrate():
    database = Database(database_url(sys.argv[1], Path()))
    await database.migrate()
    await database.close()

waiting, start = os.pipe()
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        os.close(start)
        os.read(waiting, 1)  # ends for all of them when the parent closes its end
        asyncio.run(migrate())
        os._exit(0)
    children.append(child)
os.close(start)
print([os.waitpid(child, 0)[1] for child in children])
"""


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[Database]:
    async with empty_database("postgres", tmp_path) as database:
        yield database


@pytest.fixture
async def url() -> AsyncIterator[URL]:
    async with postgres_database() as url:
        yield url


async def test_of_processes_that_start_at_once_one_makes_the_tables(empty: Database) -> None:
    url = empty.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", MIGRATING, url]
    ended = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False
    )
    assert ended.stdout == "[0, 0, 0]\n", ended.stderr
    async with empty.read() as session:
        versions = await session.scalars(text("SELECT version_num FROM alembic_version"))
        assert len(versions.all()) == 1
        assert (await session.scalars(select(User))).all() == []


async def test_a_process_has_so_many_connections_and_who_waits_too_long_is_told(url: URL) -> None:
    database = Database(url, connections=3, wait_s=0.2)
    assert database.reads_at_once == 1
    async with database.read("a"), database.read("b"), database.read("c") as session:
        open_now = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        open_now += " AND backend_type = 'client backend'"  # and not autovacuum's
        assert await session.scalar(text(open_now)) == 3
        with pytest.raises(StorageAway, match="the database can't be reached now"):
            async with database.read("d"):
                raise AssertionError("a fourth connection")
    async with database.read("d"):
        pass
    await database.close()


async def test_a_statement_on_a_lost_connection_is_told_apart_from_one_that_is_wrong(
    empty: Database,
) -> None:
    terminate = text("SELECT pg_terminate_backend(:pid)")

    async def lose() -> None:
        async with empty.read() as session:
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            async with empty.write() as other:
                await other.execute(terminate, {"pid": pid})
            await session.execute(text("SELECT 1"))

    async def err() -> None:
        async with empty.read() as session:
            await session.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(StorageAway):
        await lose()
    with pytest.raises(ProgrammingError, match="nowhere"):
        await err()


async def test_a_restart_of_the_database_is_answered_503_and_nothing_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "app.storage.database")
    async with running(tmp_path, kind="postgres") as server:
        token = await server.token("ada")
        assert (await server.ask("GET", "/me", token=token)).status == 200
        postgres().stop()
        try:
            for answer in (
                await server.ask("GET", "/me", token=token),
                await server.login("ada"),
                await server.register("bob"),
                await server.ask("GET", "/me", token=token),
            ):
                assert answer.status == 503
                assert answer.json["detail"] == "the database can't be reached now"
                assert answer.headers["retry-after"] == "2"
        finally:
            postgres().start()
        assert (await server.ask("GET", "/me", token=token)).status == 200
        assert (await server.login("ada", PASSWORD)).status == 200
        assert (await server.register("bob")).status == 200
    told = (record for record in caplog.records if record.name == "app.storage.database")
    events = [record.getMessage().split()[0] for record in told]
    assert events == ["database_away", "database_back"], "one line each, however many met it"
