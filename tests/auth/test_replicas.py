"""Two servers on one database and one store are one to their users."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.storage.database import Database
from tests.accounts_app import Server, make_server
from tests.databases import ON_POSTGRES, postgres_database
from tests.fakes import FakeService
from tests.hosts import CHEAP
from tests.servers.valkey import MISSING, valkey

pytestmark = [ON_POSTGRES, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

PROMPT = {"prompt": "Hello"}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine answers late: that shall not count as silence."""
    monkeypatch.setattr("app.storage.store.TIMEOUT_S", 30.0)


@asynccontextmanager
async def replicas(folder: Path, **settings: Any) -> AsyncIterator[tuple[Server, Server]]:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(postgres_database())
        valkey().clear()
        chosen = {"store_url": valkey().url, **settings}
        servers = []
        for _ in range(2):
            database = Database(url)
            stack.push_async_callback(database.close)
            await database.migrate()
            values = msgspec.structs.replace(CHEAP, data_dir=folder, **chosen)
            server = make_server(database, FakeService("Hel", "lo"), values)
            stack.push_async_callback(server.auth.close)
            stack.push_async_callback(server.finish)
            servers.append(server)
        yield servers[0], servers[1]


async def test_what_ends_on_one_is_over_on_the_other_at_once(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (here, there):
        token = await here.token("ada")
        assert (await there.ask("GET", "/me", token=token)).status == 200, "an account of both"
        key = (await there.ask("POST", "/me/keys", {"name": "k"}, token=token)).json
        assert (await here.ask("GET", "/me", token=key["key"])).status == 200
        revoked = await there.ask("DELETE", f"/me/keys/{key['id']}", token=token)
        assert revoked.status in {200, 204}
        assert (await here.ask("GET", "/me", token=key["key"])).status == 401
        assert (await here.ask("POST", "/logout", token=token)).status in {200, 204}
        assert (await there.ask("GET", "/me", token=token)).status == 401


async def test_limits_hold_over_all(tmp_path: Path) -> None:
    limits = {
        "rate_limit_per_minute": 4,
        "login_attempts_per_account": 3,
        "registrations_per_address": 2,
    }
    async with replicas(tmp_path, **limits) as (here, there):
        token = await here.token("ada")
        assert (await there.register("bob")).status == 200
        assert [(await one.register("eve")).status for one in (here, there)] == [429, 429]
        turns = (here, there) * 2
        chats = [await one.ask("POST", "/generate", PROMPT, token=token) for one in turns]
        assert [answer.status for answer in chats] == [200] * 4
        assert [answer.headers["x-ratelimit-remaining"] for answer in chats] == list("3210")
        assert (await here.ask("POST", "/generate", PROMPT, token=token)).status == 429
        wrong = [(await one.login("ada", "wrongpassword")).status for one in turns]
        assert wrong == [401, 401, 401, 429]


async def test_a_closed_policy_answers_503_where_there_is_a_limit(tmp_path: Path) -> None:
    limits = {"rate_limit_per_minute": 5, "store_away": "closed"}
    async with replicas(tmp_path, **limits) as (here, _):
        token = await here.token("ada")
        valkey().stop()
        try:
            answer = await here.ask("POST", "/generate", PROMPT, token=token)
        finally:
            valkey().start()
        assert answer.status == 503
        assert answer.headers["retry-after"] == "2"
        assert (await here.ask("GET", "/me", token=token)).status == 200, "this has no limit"
