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
KINDS = ["sqlite", pytest.param("postgres", marks=ON_POSTGRES)]


@asynccontextmanager
async def empty_database(kind: str, folder: Path) -> AsyncIterator[Database]:
    """A database without tables."""
    async with AsyncExitStack() as stack:
        if kind == "sqlite":
            url = database_url("", folder)
        else:
            url = await stack.enter_async_context(postgres_database())
        database = Database(url)
        stack.push_async_callback(database.close)
        yield database


@asynccontextmanager
async def postgres_database() -> AsyncIterator[URL]:
    """A new database on the PostgreSQL server, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    server = make_url(postgres().url).set(drivername="postgresql+asyncpg")
    # Each statement on a connection of its own: a test may restart the server in between.
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield server.set(database=name)
    finally:
        async with engine.connect() as connection:
            await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
