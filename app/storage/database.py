"""One database behind a URL: made, migrated, read and written.

A transaction is a `with` block of the caller's, and is on disk when the block ends; nothing
commits by the status of an HTTP answer. While the server of the database is away, blocks raise
`StorageAway`; the next one after its return connects anew. Knows nothing of what the tables mean.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, ExceptionContext, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import NullPool

from app.errors import StorageAway
from app.settings import InvalidSetting, Settings
from app.storage.shares import Shares

logger = logging.getLogger(__name__)

FILE_NAME: Final = "llmhost.db"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
LOCK_TIMEOUT_S: Final = 10.0
DatabaseFailure: Final = (SQLAlchemyError, StorageAway)
"""What goes wrong with the database, for those who only have to go on."""
READERS: Final = 3
"""Clients that together may have every connection: each reads with a third of them at once."""
# Any fixed number: PostgreSQL names advisory locks by integers.
MIGRATION_LOCK: Final = 7_264_110


class Database:
    """Where everything lies that outlives the process."""

    def __init__(self, url: URL, *, connections: int = 15, wait_s: float = 10.0) -> None:
        """Connect to nothing yet.

        Args:
            url: with an async driver, as `database_url` gives it.
            connections: how many are open at most.
            wait_s: seconds to wait for one of these, and for the server to take a new one.
        """
        self.url = url
        self.reads_at_once = max(1, connections // READERS)
        """Reads that one client may have open."""
        self._engine = _engine(
            url,
            connect_timeout_s=wait_s,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=wait_s,
        )
        self._is_away = False
        self._reading = async_sessionmaker(self._engine, expire_on_commit=False)
        # BEGIN IMMEDIATE: a transaction that reads first and then writes would otherwise be refused
        # with SQLITE_BUSY, without waiting, when another one wrote in between.
        self._writing = async_sessionmaker(
            self._engine.execution_options(sqlite_begin="IMMEDIATE"), expire_on_commit=False
        )
        self._reads, self._writes = Shares(self.reads_at_once), Shares(1)
        # SQLite has one writer. Waiting here is fair; SQLite's own waiting is polling.
        self._turn: AbstractAsyncContextManager[Any] = (
            asyncio.Lock() if _is_sqlite(url) else nullcontext()
        )

    @asynccontextmanager
    async def read(self, client: str = "") -> AsyncIterator[AsyncSession]:
        """Open a session that sees one state of the database and changes nothing.

        Args:
            client: who asked for it, a user or an address: at most
                `reads_at_once` of one client are open, the others wait. Empty: the server itself.

        Raises:
            StorageAway: there is no connection to the database, or it was lost.
        """
        async with self._share(self._reads, client), self._lost(), self._reading() as session:
            await self._connect(session)
            yield session

    @asynccontextmanager
    async def write(self, client: str = "") -> AsyncIterator[AsyncSession]:
        """Open a transaction: committed, and on disk, when the block ends; undone when it raises.

        Args:
            client: as for `read`; one of a client runs or waits for its turn, the others wait
                for it, so that whoever writes a lot delays nobody else by more than one.

        Raises:
            StorageAway: there is no connection to the database, or it was lost. One that is lost
                in the commit itself leaves open whether that came about.
        """
        async with (
            self._share(self._writes, client),
            self._turn,
            self._lost(),
            self._writing.begin() as session,
        ):
            await self._connect(session)
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

    async def _connect(self, session: AsyncSession) -> None:
        """Take a connection now, where every failure is one of reaching the database."""
        try:
            await session.connection()
        except (OSError, SQLAlchemyError) as error:  # drivers raise OSError as it comes
            raise self._gone(error) from error
        if self._is_away:
            self._is_away = False
            logger.info("database_back")

    @asynccontextmanager
    async def _lost(self) -> AsyncIterator[None]:
        """Tell a connection that broke in a block from a statement that failed there."""
        try:
            yield
        except DBAPIError as error:
            if error.connection_invalidated:
                raise self._gone(error) from error
            raise

    def _gone(self, error: Exception) -> StorageAway:
        if not self._is_away:  # one line per outage, however many requests meet it
            self._is_away = True
            reason = (str(error) or type(error).__name__).splitlines()[0]
            logger.error("database_away reason=%r", reason)
        return StorageAway("the database")

    @staticmethod
    def _share(shares: Shares, client: str) -> AbstractAsyncContextManager[None]:
        return shares.of(client) if client else nullcontext()


def database_of(settings: Settings) -> Database:
    """The database that the settings name.

    Raises:
        InvalidSetting: they name none that can be used.
    """
    return Database(
        database_url(settings.database_url, settings.data_dir),
        connections=settings.database_connections,
        wait_s=settings.database_wait_s,
    )


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


def _engine(
    url: URL,
    *,
    foreign_keys: bool = True,
    connect_timeout_s: float = LOCK_TIMEOUT_S,
    **options: Any,
) -> AsyncEngine:
    # Errors are logged, and the values of a statement are password hashes, names and chats.
    options["hide_parameters"] = True
    if not _is_sqlite(url):
        if url.get_driver_name() == "asyncpg":
            options["connect_args"] = {"timeout": connect_timeout_s}
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
        _use_write_ahead_log(connection, cursor)
        for pragma in (
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


def _use_write_ahead_log(connection: Any, cursor: Any) -> None:
    """Have readers not wait for the writer.

    To change its mode SQLite wants the file for itself, and does not wait for it: of two
    processes that start on a new file, one is told that it is locked.
    """
    give_up_s = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up_s:
                raise
            connection.run_async(lambda _: asyncio.sleep(0.02))
        else:
            return


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
