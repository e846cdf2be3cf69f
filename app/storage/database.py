"""One database behind a URL: made, migrated, read and written.

A transaction is a `with` block of the caller's, and is on disk when the block ends; nothing
commits by the status of an HTTP answer. Knows nothing of what the tables mean.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, ExceptionContext, event, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import NullPool

from app.settings import InvalidSetting
from app.storage.shares import Shares

FILE_NAME: Final = "llmhost.db"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
LOCK_TIMEOUT_S: Final = 10.0
READS_AT_ONCE: Final = 5
"""Reads that one client may have open: a third of the 15 connections in SQLAlchemy's pool."""
# Any fixed number: PostgreSQL names advisory locks by integers.
MIGRATION_LOCK: Final = 7_264_110


class Database:
    """Where everything lies that outlives the process."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._engine = _engine(url)
        self._reading = async_sessionmaker(self._engine, expire_on_commit=False)
        # BEGIN IMMEDIATE: a transaction that reads first and then writes would otherwise be refused
        # with SQLITE_BUSY, without waiting, when another one wrote in between.
        self._writing = async_sessionmaker(
            self._engine.execution_options(sqlite_begin="IMMEDIATE"), expire_on_commit=False
        )
        self._reads, self._writes = Shares(READS_AT_ONCE), Shares(1)
        # SQLite has one writer. Waiting here is fair; SQLite's own waiting is polling.
        self._turn: AbstractAsyncContextManager[Any] = (
            asyncio.Lock() if _is_sqlite(url) else nullcontext()
        )

    @asynccontextmanager
    async def read(self, client: str = "") -> AsyncIterator[AsyncSession]:
        """Open a session that sees one state of the database and changes nothing.

        Args:
            client: who asked for it, a user or an address: at most
                `READS_AT_ONCE` of one client are open, the others wait. Empty: the server itself.
        """
        async with self._share(self._reads, client), self._reading() as session:
            yield session

    @asynccontextmanager
    async def write(self, client: str = "") -> AsyncIterator[AsyncSession]:
        """Open a transaction: committed, and on disk, when the block ends; undone when it raises.

        Args:
            client: as for `read`; one of a client runs or waits for its turn, the others wait
                for it, so that whoever writes a lot delays nobody else by more than one.
        """
        async with self._share(self._writes, client), self._turn, self._writing.begin() as session:
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

    @staticmethod
    def _share(shares: Shares, client: str) -> AbstractAsyncContextManager[None]:
        return shares.of(client) if client else nullcontext()


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
    # Errors are logged, and the values of a statement are password hashes, names and chats.
    options["hide_parameters"] = True
    if not _is_sqlite(url):
        # A balancer or a restart closes idle connections; ask before use.
        engine = create_async_engine(url, pool_pre_ping=True, **options)
        event.listen(engine.sync_engine, "handle_error", _hide_row)
        return engine
    logging.getLogger("aiosqlite").setLevel(logging.INFO)  # below it, every value is logged
    engine = create_async_engine(url, connect_args={"timeout": LOCK_TIMEOUT_S}, **options)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # Python's sqlite3 starts transactions by rules of its own; ours start in `begin` below.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",  # readers don't wait for the writer
            # NORMAL survives a killed process but not a power cut. What we acknowledge is on
            # disk: one fsync per commit is little beside the hash or the reply that it keeps.
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


def _hide_row(context: ExceptionContext) -> None:
    """Take the DETAIL out of an error: PostgreSQL quotes the row there that it refused."""
    error: BaseException | None = context.original_exception
    while error is not None:
        if getattr(error, "detail", None):
            error.detail = None  # type: ignore[attr-defined] # asyncpg's errors have it
        error = error.__cause__


def _upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        assert not broken, f"the migration to {revision} left rows without their owner: {broken}"
