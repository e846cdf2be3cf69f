"""Databases for tests: a SQLite file each; PostgreSQL too where a server's URL is given.

`TEST_POSTGRES_URL=postgresql://user@host/database`; each test gets a database of its own there.
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.storage.database import Database, database_url

POSTGRES_URL = os.environ.get("TEST_POSTGRES_URL", "")
KINDS = [
    "sqlite",
    pytest.param(
        "postgres",
        marks=pytest.mark.skipif(not POSTGRES_URL, reason="TEST_POSTGRES_URL names no server"),
    ),
]


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
    server = make_url(POSTGRES_URL).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            yield server.set(database=name)
        finally:
            await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await engine.dispose()
