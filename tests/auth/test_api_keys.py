import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, func, select, update
from sqlalchemy.exc import OperationalError

from app.auth import api_keys
from app.auth.api_keys import MAX_KEYS, PREFIX, ApiKeys
from app.errors import InvalidParameter, NotAuthenticated, TooManyApiKeys, UnknownApiKey
from app.storage.database import Database
from app.storage.models import ApiKey
from tests.accounts_app import CHAT, HELLO, PASSWORD, Server, running
from tests.databases import KINDS

KEYS = "/me/keys"


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, kind=request.param) as server:
        yield server


async def new_user(server: Server, name: str = "ada") -> UUID:
    return (await server.auth.accounts.create(name, PASSWORD)).id


async def stored(server: Server) -> ApiKey:
    async with server.database.read() as session:
        return (await session.scalars(select(ApiKey))).one()


async def make_key(server: Server, token: str, name: str = "laptop", **body: object) -> dict:
    answer = await server.ask("POST", KEYS, {"name": name, **body}, token=token)
    assert answer.status == 200, answer.body
    return answer.json


async def test_a_key_is_shown_once_and_works_where_a_token_does(server: Server):
    token = await server.token("ada")
    made = await make_key(server, token)
    assert re.fullmatch(r"sk-llmhost-[A-Za-z0-9]{40}", made["key"]), made
    for method, path, body in (
        ("GET", "/me", None),
        ("POST", "/generate", {"query": "x"}),
        ("POST", f"{CHAT}?chat_id=1", HELLO),
        ("GET", "/api/chats/1", None),
    ):
        answer = await server.ask(method, path, body, token=made["key"])
        assert answer.status == 200, (path, answer.body)
    assert (await server.ask("GET", "/me", token=made["key"])).json["username"] == "ada"

    listed = await server.ask("GET", KEYS, token=token)
    [kept] = listed.json["keys"]
    assert made["key"].encode() not in listed.body
    assert (kept["name"], kept["expires_at"]) == ("laptop", None)
    assert made["key"].endswith(kept["ending"])
    assert {**kept, "last_used_at": None, "key": made["key"]} == made


async def test_only_a_hash_is_stored(server: Server):
    secret, _ = await server.auth.api_keys.create(await new_user(server), "my laptop")
    key = await stored(server)
    columns = {name: getattr(key, name) for name in ApiKey.__table__.columns.keys()}  # noqa: SIM118 # not a dict
    values = {name: str(value) for name, value in columns.items() if value is not None}
    assert len(values["key_hash"]) == 64
    assert not [name for name, value in values.items() if value in secret and name != "ending"]
    assert len(values["ending"]) == 4, "36 of the 40 characters stay unknown"


async def test_revocation_is_immediate_and_keeps_other_keys(server: Server):
    token = await server.token("ada")
    gone, kept = await make_key(server, token), await make_key(server, token)
    assert gone["key"] != kept["key"]
    assert (await server.ask("GET", "/me", token=gone["key"])).status == 200
    answer = await server.ask("DELETE", f"{KEYS}/{gone['id']}", token=token)
    assert (answer.status, answer.json) == (200, {"message": "API key revoked"})
    assert (await server.ask("GET", "/me", token=gone["key"])).status == 401
    assert (await server.ask("GET", "/me", token=kept["key"])).status == 200


async def test_another_users_key_and_none_are_one_answer(server: Server):
    ada, bob = await server.token("ada"), await server.token("bob")
    adas = await make_key(server, ada)
    for key_id in (adas["id"], str(uuid4()), "1", "x" * 100):
        answer = await server.ask("DELETE", f"{KEYS}/{key_id}", token=bob)
        assert answer.status == 404
        assert answer.json["detail"].startswith(f"there is no API key '{key_id[:70]}")
    assert (await server.ask("GET", KEYS, token=bob)).json == {"keys": []}
    assert (await server.ask("GET", "/me", token=adas["key"])).status == 200


async def test_a_key_may_not_touch_the_account_or_keys(server: Server):
    token = await server.token("ada")
    made = await make_key(server, token)
    for method, path, body in (
        ("POST", KEYS, {"name": "y"}),
        ("GET", KEYS, None),
        ("DELETE", f"{KEYS}/{made['id']}", None),
        ("POST", "/logout", None),
        ("POST", "/me/password", {"current_password": PASSWORD, "new_password": "anotherone"}),
        ("POST", "/me/delete", {"password": PASSWORD}),
    ):
        answer = await server.ask(method, path, body, token=made["key"])
        assert (answer.status, list(answer.json)) == (403, ["detail"]), path
        assert "an API key may not do this" in answer.json["detail"]
    assert len((await server.ask("GET", KEYS, token=token)).json["keys"]) == 1
    assert (await server.login("ada")).status == 200


async def test_a_key_outlives_logout_and_a_new_password_but_not_its_account(server: Server):
    token = await server.token("ada")
    key = (await make_key(server, token))["key"]
    assert (await server.ask("POST", "/logout", token=token)).status == 200
    assert (await server.ask("GET", "/me", token=key)).status == 200
    token = (await server.login("ada")).json["access_token"]
    change = {"current_password": PASSWORD, "new_password": "anotherpassword"}
    token = (await server.ask("POST", "/me/password", change, token=token)).json["access_token"]
    assert (await server.ask("GET", "/me", token=key)).status == 200
    await server.auth.accounts.reset_password("ada", PASSWORD)
    assert (await server.ask("GET", "/me", token=key)).status == 200
    token = (await server.login("ada")).json["access_token"]
    assert (
        await server.ask("POST", "/me/delete", {"password": PASSWORD}, token=token)
    ).status == 200
    assert (await server.register("ada")).status == 200
    assert (await server.ask("GET", "/me", token=key)).status == 401


async def test_a_key_expires_on_its_day_and_no_other_does(server: Server):
    token = await server.token("ada")
    lasting = await make_key(server, token)
    short = await make_key(server, token, expires_in_days=30)
    created, expires = (
        datetime.fromisoformat(short[f"{name}_at"]) for name in ("created", "expires")
    )
    assert expires - created == timedelta(days=30)
    for moment, status in ((timedelta(seconds=60), 200), (timedelta(seconds=-1), 401)):
        async with server.database.write() as session:
            await session.execute(
                update(ApiKey)
                .where(ApiKey.expires_at.is_not(None))
                .values(expires_at=datetime.now(UTC) + moment)
            )
        assert (await server.ask("GET", "/me", token=short["key"])).status == status
    assert (await server.ask("GET", "/me", token=lasting["key"])).status == 200
    assert len((await server.ask("GET", KEYS, token=token)).json["keys"]) == 2, "still listed"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "name is missing, expected string, length >= 1 and length <= 64"),
        ({"name": ""}, "name is '', expected string, length >= 1 and length <= 64"),
        ({"name": "x" * 65}, "name is 'xxx"),
        ({"name": "a\0b"}, r"name is 'a\x00b', expected 1 to 64 printable characters"),
        ({"name": "a\nb"}, r"name is 'a\nb', expected 1 to 64 printable characters"),
        ({"name": "  "}, "name is '  ', expected 1 to 64 printable characters"),
        ({"name": "x", "expires_in_days": 0}, "expires_in_days is 0, expected integer >= 1 and"),
        ({"name": "x", "expires_in_days": 3651}, "expires_in_days is 3651, expected integer >= 1"),
        ({"name": "x", "expires_in_days": 1.5}, "expires_in_days is 1.5, expected integer >= 1"),
    ],
)
async def test_a_wrong_field_is_named(server: Server, body: object, detail: str):
    token = await server.token("ada")
    answer = await server.ask("POST", KEYS, body, token=token)
    assert answer.status == 400
    assert answer.json["detail"].startswith(detail)


@pytest.mark.parametrize("name", ["x", "Zoë’s 笔记本 💻", "x" * 64])
async def test_names_of_any_script_work_and_may_repeat(server: Server, name: str):
    token = await server.token("ada")
    for _ in range(2):
        await make_key(server, token, name, expires_in_days=3650)
    keys = (await server.ask("GET", KEYS, token=token)).json["keys"]
    assert [key["name"] for key in keys] == [name, name]


async def test_of_many_creations_at_once_no_more_than_the_limit_succeed(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api_keys, "MAX_KEYS", 3)
    token = await server.token("ada")
    answers = await asyncio.gather(
        *(server.ask("POST", KEYS, {"name": "x"}, token=token) for _ in range(8))
    )
    assert sorted(answer.status for answer in answers) == [200] * 3 + [400] * 5
    [refused, *_] = [answer for answer in answers if answer.status == 400]
    assert refused.json["detail"] == "there are 3 API keys, at most 3 are kept: revoke one first"
    [kept, *_] = (await server.ask("GET", KEYS, token=token)).json["keys"]
    await server.ask("DELETE", f"{KEYS}/{kept['id']}", token=token)
    await make_key(server, token)
    await make_key(server, await server.token("bob"))


async def test_the_limit_is_a_hundred(tmp_path: Path):
    async with running(tmp_path) as server:
        user_id = await new_user(server)
        for _ in range(MAX_KEYS):
            await server.auth.api_keys.create(user_id, "x")
        with pytest.raises(TooManyApiKeys, match="at most 100 are kept"):
            await server.auth.api_keys.create(user_id, "x")


async def test_no_key_is_made_for_nobody(server: Server):
    with pytest.raises(NotAuthenticated, match="deleted"):
        await server.auth.api_keys.create(uuid4(), "x")


@asynccontextmanager
async def counting(database: Database) -> AsyncIterator[list[str]]:
    """The statements that are run."""
    statements: list[str] = []

    def note(_connection, _cursor, statement: str, *_: object) -> None:
        statements.append(statement)

    engine = database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def test_last_use_is_written_once_a_minute_and_a_look_up_is_one_statement(server: Server):
    keys = server.auth.api_keys
    secret, _ = await keys.create(await new_user(server), "x")
    assert (await stored(server)).last_used_at is None
    async with counting(server.database) as statements:
        await asyncio.gather(*(keys.principal(secret) for _ in range(20)))
        await keys.finish()
    assert sum("SELECT" in statement for statement in statements) == 20
    assert sum("UPDATE" in statement for statement in statements) == 1, statements
    first = (await stored(server)).last_used_at
    assert first is not None
    assert abs(datetime.now(UTC) - first) < timedelta(seconds=60)

    # a minute later; and in a process that has just started
    for aged, process in ((True, keys), (True, ApiKeys(server.database)), (False, None)):
        if aged:
            keys._noted.clear()
            async with server.database.write() as session:
                past = datetime.now(UTC) - timedelta(seconds=61)
                await session.execute(update(ApiKey).values(last_used_at=past))
        later = process or ApiKeys(server.database)
        before = (await stored(server)).last_used_at
        await later.principal(secret)
        await later.finish()
        assert ((await stored(server)).last_used_at != before) is aged


async def test_a_request_does_not_wait_for_its_use_to_be_written(tmp_path: Path):
    async with running(tmp_path) as server:
        secret, _ = await server.auth.api_keys.create(await new_user(server), "x")
        async with server.database.write(), asyncio.timeout(5):  # nobody else can write meanwhile
            await server.auth.api_keys.principal(secret)
        await server.auth.api_keys.finish()
        assert (await stored(server)).last_used_at is not None


async def test_a_use_that_cannot_be_written_is_logged_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    @asynccontextmanager
    async def full() -> AsyncIterator[None]:
        raise OperationalError("UPDATE", {}, Exception("database or disk is full"))
        yield

    async with running(tmp_path) as server:
        token = await server.token("ada")
        key = (await make_key(server, token))["key"]
        monkeypatch.setattr(server.database, "write", full)
        for _ in range(3):
            assert (await server.ask("GET", "/me", token=key)).status == 200
        await server.auth.api_keys.finish()
    ours = [record for record in caplog.records if record.name == "app.auth.api_keys"]
    assert [record.levelno for record in ours] == [logging.WARNING], "it is not tried again at once"
    assert "api_key_uses_not_noted keys=1" in caplog.text
    assert "disk is full" in caplog.text
    assert key not in caplog.text


async def test_keys_never_appear_in_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "sqlalchemy.engine")  # DEBUG, when chosen, logs whole rows
    async with running(tmp_path) as server:
        token = await server.token("ada")
        made = await make_key(server, token)
        key = made["key"]
        bad = key[:-1] + ("a" if key[-1] != "a" else "b")
        for sent in (key, bad, f"{key}x"):
            await server.ask("GET", "/me", token=sent)
            await server.ask("POST", KEYS, {"name": "\0"}, token=sent)
        kept = await stored(server)
        await server.ask("DELETE", f"{KEYS}/{made['id']}", token=token)
        await server.ask("GET", "/me", token=key)
    assert "INSERT INTO api_keys" in caplog.text, "the statements must be logged"
    assert kept.key_hash not in caplog.text
    assert key[len(PREFIX) : -4] not in caplog.text
    assert PREFIX not in caplog.text


async def test_however_many_keys_are_used_one_transaction_waits_to_note_it(tmp_path: Path):
    async with running(tmp_path) as server:
        user_id, keys = await new_user(server), server.auth.api_keys
        secrets = [(await keys.create(user_id, "x"))[0] for _ in range(30)]
        async with counting(server.database) as statements:
            async with server.database.write():  # SQLite: nobody else can write meanwhile
                await asyncio.gather(*(keys.principal(secret) for secret in secrets))
            await keys.finish()
        updates = sum("UPDATE" in statement for statement in statements)
        assert updates <= 2, "one for the first, and one for the rest"
        async with server.database.read() as session:
            unused = select(func.count()).where(ApiKey.last_used_at.is_(None))
            assert await session.scalar(unused) == 0


async def test_more_uses_than_one_transaction_takes_are_all_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api_keys, "USES_AT_ONCE", 2)
    async with running(tmp_path) as server:
        user_id, keys = await new_user(server), server.auth.api_keys
        secrets = [(await keys.create(user_id, "x"))[0] for _ in range(5)]
        await asyncio.gather(*(keys.principal(secret) for secret in secrets))
        await keys.finish()
        async with server.database.read() as session:
            used = select(func.count()).where(ApiKey.last_used_at.is_not(None))
            assert await session.scalar(used) == 5


async def test_uses_of_long_ago_are_not_remembered(tmp_path: Path):
    async with running(tmp_path) as server:
        keys, gone = server.auth.api_keys, uuid4()
        keys._noted[gone] = datetime.now(UTC) - timedelta(minutes=2)
        secret, key = await keys.create(await new_user(server), "x")
        await keys.principal(secret)
        await keys.finish()
        assert keys._noted.keys() == {key.id}


async def test_made_up_keys_from_one_address_leave_look_ups_to_others(server: Server):
    secret, _ = await server.auth.api_keys.create(await new_user(server), "x")
    made_up = [secret[:-4] + f"{number:04}" for number in range(300)]
    refused: list[object] = []

    async def try_one(key: str) -> None:
        with pytest.raises(NotAuthenticated):
            await server.auth.api_keys.principal(key, "192.0.2.1")
        refused.append(key)

    flood = [asyncio.create_task(try_one(key)) for key in made_up if key != secret]
    await asyncio.sleep(0)
    await server.auth.api_keys.principal(secret, "192.0.2.2")
    assert len(refused) < 60, f"{len(refused)} of {len(flood)} came first"
    await asyncio.gather(*flood)


class Untouchable(Database):
    def __init__(self) -> None:
        pass

    def read(self, _client: str = ""):
        raise AssertionError("the database was asked")


@given(
    st.text() | st.text().map(PREFIX.__add__) | st.from_regex(r"sk-[\w-]{20,60}", fullmatch=True)
)
def test_what_is_no_key_of_ours_is_refused_without_asking_the_database(text: str):
    with pytest.raises(NotAuthenticated, match="invalid API key"):
        asyncio.run(ApiKeys(Untouchable()).principal(text))


@pytest.mark.parametrize("ending", ["\n", " ", "é", "a" * 100_000])
async def test_a_key_with_something_behind_it_is_refused(server: Server, ending: str):
    secret, _ = await server.auth.api_keys.create(await new_user(server), "x")
    with pytest.raises(NotAuthenticated):
        await server.auth.api_keys.principal(secret + ending)


async def test_ids_and_lives_are_checked_below_the_dialects_too(server: Server):
    keys, user_id = server.auth.api_keys, await new_user(server)
    for days in (0, -1, 3651):
        with pytest.raises(
            InvalidParameter, match=rf"expires_in_days is {days}, expected 1 to 365"
        ):
            await keys.create(user_id, "x", days)
    with pytest.raises(UnknownApiKey):
        await keys.revoke(user_id, "nonsense")
