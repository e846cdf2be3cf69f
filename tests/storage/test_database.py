import asyncio
import logging
import sqlite3
import stat
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, Column, Connection, MetaData, Table, insert, select, text
from sqlalchemy.exc import IntegrityError

from app.settings import InvalidSetting
from app.storage.chats import Turn, bytes_of, keep_turn, messages_of
from app.storage.database import Database, database_url
from app.storage.models import ApiKey, Chat, KnownAddress, Login, Message, User
from tests.databases import KINDS, empty_database
from tests.fakes import PATIENCE_S, until


@pytest.fixture(params=KINDS)
async def empty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with empty_database(request.param, tmp_path) as database:
        yield database


def user(name: str = "ada") -> User:
    return User(username=name, username_key=name, password_hash="x")


def key_of(owner: User) -> ApiKey:
    return ApiKey(
        user_id=owner.id, name="k", key_hash="0" * 64, ending="abcd", created_at=owner.created_at
    )


async def test_migrated_tables_are_the_models(empty: Database) -> None:
    await empty.migrate()

    def differences(connection: Connection) -> list[object]:
        # SQLite has no such types to compare: it reports BINARY(16) as NUMERIC.
        types = connection.dialect.name != "sqlite"
        context = MigrationContext.configure(connection, opts={"compare_type": types})
        return list(compare_metadata(context, User.metadata))

    async with empty.read() as session:
        connection = await session.connection()
        assert await connection.run_sync(differences) == []


async def test_migrations_from_the_first_version_keep_its_data(empty: Database) -> None:
    await empty.migrate("0001")
    async with empty.write() as session:
        session.add(user())
    async with empty.read() as session:
        names = await (await session.connection()).run_sync(
            lambda connection: connection.dialect.get_table_names(connection)
        )
    assert "chats" not in names, "the first version must lack something or this proves nothing"

    await empty.migrate()

    async with empty.write() as session:
        kept = (await session.scalars(select(User))).one()
        assert (kept.username, kept.role) == ("ada", "user")
        turn = Turn(question="q", reply="a", model_id="m", complete=True)
        await keep_turn(session, kept.id, "1", turn)


async def test_api_keys_come_to_a_database_that_is_in_use(empty: Database) -> None:
    await empty.migrate("0001")
    async with empty.write() as session:
        session.add(ada := user())
        await session.flush()
        now = ada.created_at
        session.add(Login(user_id=ada.id, refresh_hash="h", created_at=now, expires_at=now))
    await empty.migrate("0002")
    await keep_old_turn(empty, ada, "q", "ä€")
    async with empty.read() as session:
        names = await (await session.connection()).run_sync(
            lambda connection: connection.dialect.get_table_names(connection)
        )
    assert "api_keys" not in names, "the second version must lack them or this proves nothing"

    await empty.migrate()

    async with empty.write() as session:
        assert (await session.scalars(select(User.id))).all() == [ada.id]
        assert (await session.scalars(select(Login.refresh_hash))).all() == ["h"]
        chat = (await session.scalars(select(Chat))).one()
        assert [message.content for message in await messages_of(session, chat)] == ["q", "ä€"]
        assert chat.num_bytes == bytes_of("q", "ä€") == 1 + 5 + 2 * 100
        session.add(key_of(ada))
    async with empty.read() as session:
        key = (await session.scalars(select(ApiKey))).one()
    assert (key.user_id, key.created_at, key.expires_at) == (ada.id, now, None)


async def keep_old_turn(database: Database, owner: User, question: str, reply: str) -> None:
    """Keep a turn as the second version did."""
    row = {
        "id": uuid4(),
        "user_id": owner.id,
        "chat_id": "1",
        "title": question,
        "created_at": owner.created_at,
        "updated_at": owner.created_at,
    }
    columns = {column.name: column for column in Chat.__table__.columns}
    old = Table("chats", MetaData(), *(Column(name, columns[name].type) for name in row))
    async with database.write() as session:
        await session.execute(insert(old).values(row))
        for role, content in (("user", question), ("assistant", reply)):
            session.add(
                Message(
                    chat=row["id"],
                    role=role,
                    content=content,
                    complete=True,
                    created_at=owner.created_at,
                )
            )


async def test_no_two_keys_have_one_hash(empty: Database) -> None:
    await empty.migrate()
    async with empty.write() as session:
        session.add(ada := user())
        await session.flush()
        session.add(key_of(ada))
    with pytest.raises(IntegrityError):
        async with empty.write() as session:
            session.add(key_of(ada))


async def test_migrating_twice_and_at_once_changes_nothing(empty: Database) -> None:
    await asyncio.gather(empty.migrate(), empty.migrate())
    async with empty.write() as session:
        session.add(user())
    await empty.migrate()
    async with empty.read() as session:
        assert (await session.scalars(select(User))).one().username == "ada"


async def test_those_who_open_a_new_file_at_once_wait_for_each_other(tmp_path: Path) -> None:
    """SQLite itself lets one in ten fail when they change the mode of its journal."""

    async def open_it(database: Database) -> None:
        async with database.read() as session:
            assert await session.scalar(text("PRAGMA journal_mode")) == "wal"

    for name in range(40):
        url = URL.create("sqlite+aiosqlite", database=str(tmp_path / f"{name}.db"))
        opened = [Database(url) for _ in range(4)]
        await asyncio.gather(*map(open_it, opened))
        for database in opened:
            await database.close()


async def test_a_migration_that_fails_leaves_the_version_before(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the disk is full")

    await empty.migrate("0001")
    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_index", fail)
        with pytest.raises(RuntimeError, match="the disk is full"):
            await empty.migrate()
    async with empty.read() as session:
        assert await session.scalar(text("SELECT version_num FROM alembic_version")) == "0001"
    await empty.migrate()


async def test_a_deleted_user_takes_everything_along(empty: Database) -> None:
    await empty.migrate()
    async with empty.write() as session:
        session.add(ada := user())
        await session.flush()
        now = ada.created_at
        session.add(Login(user_id=ada.id, refresh_hash="h", created_at=now, expires_at=now))
        session.add(key_of(ada))
        session.add(KnownAddress(user_id=ada.id, address_hash="h", seen_at=now))
        turn = Turn(question="q", reply="a", model_id="m", complete=True)
        await keep_turn(session, ada.id, "1", turn)
    async with empty.write() as session:
        await session.execute(text("DELETE FROM users"))
    async with empty.read() as session:
        for table in ("users", "logins", "api_keys", "known_addresses", "chats", "messages"):
            count = await session.scalar(text(f"SELECT count(*) FROM {table}"))
            assert count == 0, table


async def test_a_block_that_raises_is_undone(empty: Database) -> None:
    await empty.migrate()

    async def add_twice() -> None:
        async with empty.write() as session:
            session.add(user("ada"))
            await session.flush()
            session.add(user("ada"))

    with pytest.raises(IntegrityError):
        await add_twice()
    async with empty.read() as session:
        assert (await session.scalars(select(User))).all() == []


async def test_a_statement_that_fails_tells_nothing_of_its_values(
    empty: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sqlalchemy")
    await empty.migrate()
    secret = "$argon2id$secret"
    for broken in ("username", "username_key", "id"):
        wrong = user()
        wrong.password_hash, wrong.username = secret, f"{secret} name"
        async with empty.write() as session:
            session.add(user(secret))
        setattr(wrong, broken, None)
        if broken == "id":
            wrong.username_key = secret  # not unique: PostgreSQL quotes the key
        with pytest.raises(IntegrityError) as failed:
            async with empty.write() as session:
                session.add(wrong)
        told = "".join(traceback.format_exception(failed.value))
        assert "INSERT INTO users" in told, "the statement itself must be told"
        assert secret not in told
        async with empty.write() as session:
            await session.execute(text("DELETE FROM users"))
    assert "INSERT INTO users" in caplog.text
    assert secret not in caplog.text


async def test_whoever_floods_the_database_delays_others_by_one_of_theirs(empty: Database) -> None:
    await empty.migrate()
    order: list[str] = []

    async def write(client: str) -> None:
        async with empty.write(client) as session:
            await session.scalars(select(User))
            order.append(client)

    flood = [asyncio.create_task(write("flood")) for _ in range(200)]
    await asyncio.sleep(0)
    await asyncio.gather(write("ada"), write("bob"))
    assert sorted(order)[:2] == ["ada", "bob"]
    # those that were begun in between on PostgreSQL, where writers don't wait for each other
    assert len(order) < 50, f"{len(order)} came first"
    await asyncio.gather(*flood)


async def test_whoever_reads_a_lot_leaves_connections_for_others(empty: Database) -> None:
    await empty.migrate()
    done, reading = asyncio.Event(), 0

    async def read() -> None:
        nonlocal reading
        async with empty.read("flood") as session:
            await session.scalars(select(User))
            reading += 1
            await done.wait()

    flood = [asyncio.create_task(read()) for _ in range(50)]
    try:
        await until(lambda: reading == empty.reads_at_once)
        async with asyncio.timeout(PATIENCE_S), empty.read("ada") as session:
            await session.scalars(select(User))
        async with asyncio.timeout(PATIENCE_S), empty.write("ada") as session:
            session.add(user())
        assert reading == empty.reads_at_once
    finally:
        done.set()
    await asyncio.gather(*flood)
    assert reading == 50


async def test_a_hundred_writers_wait_for_each_other(empty: Database) -> None:
    await empty.migrate()

    async def write(number: int) -> None:
        async with empty.write() as session:
            await session.scalars(select(User))  # reads first: the case SQLite refuses if deferred
            session.add(user(f"user{number}"))

    await asyncio.gather(*map(write, range(100)))
    async with empty.read() as session:
        assert len((await session.scalars(select(User))).all()) == 100


async def test_turns_that_end_at_once_do_not_interleave(empty: Database) -> None:
    await empty.migrate()
    async with empty.write() as session:
        session.add(ada := user())

    async def keep(number: int) -> None:
        turn = Turn(question=f"q{number}", reply=f"a{number}", model_id="m", complete=True)
        async with empty.write() as session:
            await keep_turn(session, ada.id, "same", turn)

    await asyncio.gather(*map(keep, range(20)))
    async with empty.read() as session:
        chat = (await session.scalars(select(Chat))).one()
        contents = [message.content for message in await messages_of(session, chat)]
    assert sorted(contents[::2]) == sorted(f"q{n}" for n in range(20))
    assert [f"a{content[1:]}" for content in contents[::2]] == contents[1::2]


async def test_nul_is_kept_as_a_replacement_character(empty: Database) -> None:
    await empty.migrate()
    async with empty.write() as session:
        session.add(ada := user())
        await session.flush()
        turn = Turn(question="a\0b", reply="c\0d", model_id="m", complete=True)
        await keep_turn(session, ada.id, "1", turn)
        chat = (await session.scalars(select(Chat))).one()
        contents = [message.content for message in await messages_of(session, chat)]
    assert [chat.title, *contents] == ["a\ufffdb", "a\ufffdb", "c\ufffdd"]


async def test_the_file_is_wal_synchronous_and_private(tmp_path: Path) -> None:
    async with empty_database("sqlite", tmp_path / "data") as database:
        await database.migrate()
        async with database.write() as session:
            pragmas = [
                await session.scalar(text(f"PRAGMA {name}"))
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]
    assert pragmas == ["wal", 2, 1, 10_000]  # 2: FULL
    file = tmp_path / "data" / "llmhost.db"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)]
    assert modes == [0o600, 0o700]


async def test_a_killed_writer_leaves_what_it_acknowledged(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, signal
from pathlib import Path
from app.storage.database import Database, database_url
from app.storage.models import User
async def main():
    database = Database(database_url("", Path({str(tmp_path)!r})))
    await database.migrate()
    for number in range(20):
        async with database.write() as session:
            session.add(User(username=str(number), username_key=str(number), password_hash="x"))
    print("acknowledged", flush=True)
    async with database.write() as session:
        session.add(User(username="half", username_key="half", password_hash="x"))
        await session.flush()
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    process = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, check=False
    )
    assert process.returncode == -9, process.stderr
    assert process.stdout == b"acknowledged\n"
    with sqlite3.connect(tmp_path / "llmhost.db") as connection:
        names = {name for (name,) in connection.execute("SELECT username FROM users")}
    connection.close()
    assert names == {str(number) for number in range(20)}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("not a url", "not a database URL"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("mysql+aiomysql://host/name", "needs a driver"),
    ],
)
def test_an_unusable_url_is_refused_with_the_reason(url: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=f"LLMHOST_DATABASE_URL: .*{words}"):
        database_url(url, tmp_path)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:////tmp/file.db", "sqlite+aiosqlite"),
        ("postgres://host/name", "postgresql+asyncpg"),
        ("postgresql://host/name", "postgresql+asyncpg"),
        ("postgresql+asyncpg://host/name", "postgresql+asyncpg"),
    ],
)
def test_urls_get_an_async_driver(url: str, driver: str, tmp_path: Path) -> None:
    assert database_url(url, tmp_path).drivername == driver
