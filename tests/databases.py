"""Databases for tests: a SQLite file each, and a database of its own on PostgreSQL.

The server is Debian's, started at first use (tests/servers/postgres.py).
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.storage.database import Database, database_url
from tests.servers.postgres import MISSING, postgres

ON_POSTGRES = pytest.mark.skipif(bool(MISSING), reason=MISSING)
_SQLITE: list[bytes] = []
"""A file with this version's empty tables, once there is one."""
_POSTGRES: list[str] = []
"""The name of a database with them."""
KINDS = ["sqlite", pytest.param("postgres", marks=ON_POSTGRES)]


@asynccontextmanager
async def empty_database(kind: str, folder: Path) -> AsyncIterator[Database]:
    """A database without tables."""
    async with AsyncExitStack() as stack:
        if kind == "sqlite":
            url = database_url("", folder)
        else:
            url = await stack.enter_async_context(postgres_database())
        yield _opened(url, stack)


@asynccontextmanager
async def current_database(kind: str, folder: Path) -> AsyncIterator[Database]:
    """A database with this version's tables: they are made once, and copied from then on."""
    async with AsyncExitStack() as stack:
        if kind == "sqlite":
            url = database_url("", folder)
            await _fill(Path(str(url.database)))
        else:
            if not _POSTGRES:
                _POSTGRES.append(await _make_template())
            url = await stack.enter_async_context(postgres_database(_POSTGRES[0]))
        yield _opened(url, stack)


def _opened(url: URL, stack: AsyncExitStack) -> Database:
    database = Database(url)
    stack.push_async_callback(database.close)
    return database


async def _fill(file: Path) -> None:
    if file.stat().st_size:  # noqa: ASYNC240 # nothing else waits for this loop
        return
    if _SQLITE:
        file.write_bytes(_SQLITE[0])  # noqa: ASYNC240
    else:
        await Database(URL.create("sqlite+aiosqlite", database=str(file))).migrate()
        _SQLITE.append(file.read_bytes())  # noqa: ASYNC240


async def _make_template() -> str:
    """Make a database that lasts as long as the server."""
    name = f"template_{uuid.uuid4().hex}"
    await _on_server(f"CREATE DATABASE {name}")
    await Database(_server().set(database=name)).migrate()
    return name


@asynccontextmanager
async def postgres_database(template: str = "template1") -> AsyncIterator[URL]:
    """A new database on the PostgreSQL server, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    await _on_server(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield _server().set(database=name)
    finally:
        await _on_server(f"DROP DATABASE {name} WITH (FORCE)")


def _server() -> URL:
    return make_url(postgres().url).set(drivername="postgresql+asyncpg")


async def _on_server(statement: str) -> None:
    """Run a statement on a connection of its own: a test may restart the server in between."""
    engine = create_async_engine(_server(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text(statement))
