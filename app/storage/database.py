"""One database behind a URL: made, migrated, read and written.

A transaction is a `with` block of the caller's, and is on disk when the block ends; nothing
commits by the status of an HTTP answer. Knows nothing of what the tables mean.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import NullPool

from app.settings import InvalidSetting

FILE_NAME: Final = "llmhost.db"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
LOCK_TIMEOUT_S: Final = 10.0
# Any number of ours: PostgreSQL's advisory locks are named by integers.
MIGRATION_LOCK: Final = 7_264_110


class Database:
    """Where everything lies that outlives the process."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._engine = _engine(url)
        self._reading = async_sessionmaker(self._engine, expire_on_commit=False)
        # BEGIN IMMEDIATE: a transaction that reads first and then writes would else be refused
        # with SQLITE_BUSY, without waiting, when another one wrote in between.
        self._writing = async_sessionmaker(
            self._engine.execution_options(sqlite_begin="IMMEDIATE"), expire_on_commit=False
        )
        # SQLite has one writer. Waiting here is fair; SQLite's own waiting is polling.
        self._turn: AbstractAsyncContextManager[Any] = (
            asyncio.Lock() if _is_sqlite(url) else nullcontext()
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session that sees one state of the database and changes nothing."""
        async with self._reading() as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction: committed, and on disk, when the block ends; undone when it raises."""
        async with self._turn, self._writing.begin() as session:
            yield session

    async def migrate(self, revision: str = "head") -> None:
        """Bring the tables up to a revision; two processes may do so at once."""
        # An engine of its own, without foreign keys: to change a table, SQLite copies it and
        # drops the old one, and with foreign keys on that deletes every row that points at it.
        engine = _engine(self.url, foreign_keys=False, poolclass=NullPool).execution_options(
            sqlite_begin="IMMEDIATE"
        )
        try:
            async with engine.begin() as connection:
                if not _is_sqlite(self.url):
                    await connection.execute(
                        text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK}
                    )
                await connection.run_sync(_upgrade, revision)
        finally:
            await engine.dispose()

    async def close(self) -> None:
        """Give every connection back."""
        await self._engine.dispose()


def database_url(url: str, data_dir: Path) -> URL:
    """The setting as a URL with an async driver; empty: a file in the data directory.

    Raises:
        InvalidSetting: it is no database URL, or its driver is not installed.
    """
    if not url:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = data_dir / FILE_NAME
        file.touch(mode=0o600)  # before SQLite makes it readable for everybody
        return URL.create("sqlite+aiosqlite", database=str(file))
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidSetting("LLMHOST_DATABASE_URL: not a database URL") from error
    drivers = {
        "sqlite": "sqlite+aiosqlite",
        "postgresql": "postgresql+asyncpg",
        "postgres": "postgresql+asyncpg",
    }
    parsed = parsed.set(drivername=drivers.get(parsed.drivername, parsed.drivername))
    if _is_sqlite(parsed) and parsed.database in {None, "", ":memory:"}:
        raise InvalidSetting("LLMHOST_DATABASE_URL: SQLite needs a file, memory is not kept")
    try:
        parsed.get_dialect().import_dbapi()
    except ImportError as error:
        raise InvalidSetting(
            f"LLMHOST_DATABASE_URL: {parsed.drivername} needs a driver ({error}); "
            "for PostgreSQL install llmhost[postgres]"
        ) from error
    return parsed


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _engine(url: URL, *, foreign_keys: bool = True, **options: Any) -> AsyncEngine:
    if not _is_sqlite(url):
        # A balancer or a restart closes idle connections; ask before use.
        return create_async_engine(url, pool_pre_ping=True, **options)
    engine = create_async_engine(url, connect_args={"timeout": LOCK_TIMEOUT_S}, **options)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # Python's sqlite3 starts transactions by rules of its own; ours start in `begin` below.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",  # readers don't wait for the writer
            # NORMAL survives a killed process but not a power cut. What we acknowledge is on
            # disk: one fsync a commit is little beside the hash or the reply that it keeps.
            "synchronous = FULL",
            f"foreign_keys = {'ON' if foreign_keys else 'OFF'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        kind = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {kind}")

    return engine


def _upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        assert not broken, f"the migration to {revision} left rows without their owner: {broken}"
