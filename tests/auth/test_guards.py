"""The matrix: every protected endpoint × every token that must not pass; and users apart."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote
from uuid import UUID, uuid4

import jwt
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Litestar, get
from litestar.datastructures import State
from sqlalchemy import update

from app.auth.guards import admin_if_required, signed_in_if_required, within_rate_limit
from app.auth.keys import KeyRing
from app.auth.tokens import Claims, Kind, TokenSigner
from app.dialects.llm_host import wire
from app.errors import Error
from app.storage.models import ApiKey, Role
from tests.accounts_app import CHAT, HELLO, PASSWORD, Server, running
from tests.asgi_client import Answer, ask

PROTECTED = [
    ("POST", "/generate", {"query": "x"}),
    ("POST", "/generate?stream=true", {"query": "x"}),
    ("POST", "/logout", None),
    ("GET", "/me", None),
    ("POST", "/me/password", {"current_password": PASSWORD, "new_password": "anotherpassword"}),
    ("POST", "/me/delete", {"password": PASSWORD}),
    ("POST", "/me/keys", {"name": "x"}),
    ("GET", "/me/keys", None),
    ("DELETE", "/me/keys/1", None),
    ("POST", f"{CHAT}?chat_id=1", HELLO),
    ("GET", "/api/chats", None),
    ("GET", "/api/chats/1", None),
    ("PATCH", "/api/chats/1", {"title": "x"}),
    ("PUT", "/api/chats/1", {"title": "x", "messages": []}),
    ("DELETE", "/api/chats/1", None),
    ("POST", "/v1/files", None),
    ("GET", "/v1/files", None),
    ("GET", "/v1/files/1", None),
    ("DELETE", "/v1/files/1", None),
    ("GET", "/v1/files/1/content", None),
    ("POST", "/v1/batches", {}),
    ("GET", "/v1/batches", None),
    ("GET", "/v1/batches/1", None),
    ("POST", "/v1/batches/1/cancel", None),
]
ENVELOPES = {"/api/": ["statusCode", "statusMessage"], "/v1/": ["error"]}
BAD_KEYS = ["malformed key", "unknown key", "revoked key", "expired key", "key of a deleted user"]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as server:
        yield server


async def headers_of(server: Server, case: str) -> dict[str, str]:  # noqa: PLR0912 # one branch a case
    """An `Authorization` that must not pass."""
    await server.register("ada")
    tokens = (await server.login("ada")).json
    access = tokens["access_token"]
    claims = server.auth.logins._signer.read(access, Kind.ACCESS)
    body = jwt.decode(access, options={"verify_signature": False})
    kid = jwt.get_unverified_header(access)["kid"]

    def signed(claims: Claims) -> str:
        return server.auth.logins._signer.sign(claims)

    match case:
        case "none":
            return {}
        case "empty":
            return {"authorization": "Bearer "}
        case "basic":
            return {"authorization": f"Basic {access}"}
        case "malformed":
            token = "not.a.token"
        case "cut":
            token = access[:-4]
        case "changed":
            head, _, tail = access.split(".")
            changed = jwt.encode({**body, "sub": str(UUID(int=0))}, "s" * 32).split(".")[1]
            token = f"{head}.{changed}.{tail}"
        case "expired":
            past = datetime.now(UTC) - timedelta(seconds=1)
            token = signed(msgspec.structs.replace(claims, expires_at=past))
        case "wrong key":
            token = TokenSigner(KeyRing(["o" * 32])).sign(claims)
        case "wrong key, right id":
            token = jwt.encode(body, "o" * 32, "HS256", headers={"kid": kid})
        case "alg none":
            token = jwt.encode(body, "", "none", headers={"kid": kid})
        case "another issuer":
            token = jwt.encode({**body, "iss": "x"}, "s" * 32, "HS256", headers={"kid": kid})
        case "refresh as access":
            token = tokens["refresh_token"]
        case "signed out":
            await server.auth.logins.sign_out(claims.user_id, claims.login_id)
            token = access
        case "another user's login":
            bob = await server.token("bob")
            bobs = server.auth.logins._signer.read(bob, Kind.ACCESS)
            token = signed(msgspec.structs.replace(claims, login_id=bobs.login_id))
        case "deleted user":
            await server.auth.accounts.delete(claims.user_id, PASSWORD)
            token = access
        case _ if case in BAD_KEYS:
            token = await bad_key(server, claims.user_id, case)
        case _:
            raise AssertionError(case)
    return {"authorization": f"Bearer {token}"}


async def bad_key(server: Server, user_id: UUID, case: str) -> str:
    keys = server.auth.api_keys
    secret, key = await keys.create(user_id, "x", expires_in_days=1)
    assert (await keys.principal(secret)).user_id == user_id, "it must have been good"
    match case:
        case "malformed key":
            return secret + "x"
        case "unknown key":
            last = "a" if secret[-1] != "a" else "b"
            return secret[:-1] + last
        case "revoked key":
            await keys.revoke(user_id, str(key.id))
        case "expired key":
            async with server.database.write() as session:
                past = datetime.now(UTC) - timedelta(seconds=1)
                await session.execute(update(ApiKey).values(expires_at=past))
        case "key of a deleted user":
            await server.auth.accounts.delete(user_id, PASSWORD)
    return secret


@pytest.mark.parametrize(
    "case",
    [
        "none",
        "empty",
        "basic",
        "malformed",
        "cut",
        "changed",
        "expired",
        "wrong key",
        "wrong key, right id",
        "alg none",
        "another issuer",
        "refresh as access",
        "signed out",
        "another user's login",
        "deleted user",
        *BAD_KEYS,
    ],
)
async def test_every_protected_endpoint_refuses(server: Server, case: str):
    headers = await headers_of(server, case)
    for method, path, body in PROTECTED:
        answer = await server.ask(method, path, body, headers=headers)
        assert answer.status == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        beginning = path[: path.find("/", 1) + 1]
        assert list(answer.json) == ENVELOPES.get(beginning, ["detail"])
    assert server.service.engine.submitted == []


@pytest.mark.parametrize("case", ["malformed", "wrong key", "alg none", "expired", "cut"])
async def test_refresh_refuses_the_same_and_an_access_token(server: Server, case: str):
    headers = await headers_of(server, case)
    token = headers["authorization"].removeprefix("Bearer ")
    for given_token in (token, (await server.login("ada")).json["access_token"]):
        answer = await server.ask("POST", "/refresh", {"refresh_token": given_token})
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_the_scheme_is_read_in_any_capitals(server: Server):
    token = await server.token("ada")
    headers = {"authorization": f"bearer {token}"}
    assert (await server.ask("GET", "/me", headers=headers)).status == 200


async def test_a_replaced_secret_keeps_tokens_until_it_is_gone(tmp_path: Path):
    async with running(tmp_path) as server:
        token = await server.token("ada")
    for secret, status in ((f"{'n' * 32},{'s' * 32}", 200), ("n" * 32, 401)):
        async with running(tmp_path, jwt_secret=secret) as server:
            assert (await server.ask("GET", "/me", token=token)).status == status


@get("/anybody", guards=[signed_in_if_required, within_rate_limit])
async def anybody() -> str:
    return "ok"


@get("/manage", guards=[admin_if_required])
async def manage() -> str:
    return "ok"


def open_or_closed(server: Server) -> Litestar:
    return Litestar(
        [anybody, manage],
        state=State({"access": server.auth.access}),
        exception_handlers={Error: lambda _, error: wire.refuse(error)},
        openapi_config=None,
    )


async def test_an_open_server_lets_everybody_pass_whatever_token_they_bring(server: Server):
    app = open_or_closed(server)
    brought = [
        {},
        {"authorization": "Bearer sk-anything"},
        {"authorization": "Bearer EMPTY"},
        await headers_of(server, "revoked key"),
        await headers_of(server, "expired key"),
    ]
    for headers in brought:
        for path in ("/anybody", "/manage"):
            assert (await ask(app, "GET", path, headers=headers)).status == 200


async def test_a_closed_server_asks_for_a_user_and_managing_for_an_admin(tmp_path: Path):
    async with running(tmp_path, require_auth=True) as server:
        app, token = open_or_closed(server), await server.token("ada")
        headers = {"authorization": f"Bearer {token}"}

        async def status(path: str, headers: dict[str, str]) -> int:
            return (await ask(app, "GET", path, headers=headers)).status

        assert [await status("/anybody", {}), await status("/anybody", headers)] == [401, 200]
        assert [await status("/manage", {}), await status("/manage", headers)] == [401, 403]
        await server.auth.accounts.set_role("ada", Role.ADMIN)
        assert await status("/manage", headers) == 200


async def test_without_a_user_the_address_is_limited(tmp_path: Path):
    async with running(tmp_path, rate_limit_per_minute=1) as server:
        app, token = open_or_closed(server), await server.token("ada")
        headers = {"authorization": f"Bearer {token}"}
        assert (await ask(app, "GET", "/anybody")).status == 200
        assert (await ask(app, "GET", "/anybody")).status == 429
        assert (await ask(app, "GET", "/anybody", headers=headers)).status == 200


async def test_on_an_open_server_a_key_is_limited_as_its_user_and_a_bad_one_by_its_address(
    tmp_path: Path,
):
    async with running(tmp_path, rate_limit_per_minute=1) as server:
        app, token = open_or_closed(server), await server.token("ada")
        key = (await server.ask("POST", "/me/keys", {"name": "x"}, token=token)).json["key"]

        async def status(token: str) -> int:
            headers = {"authorization": f"Bearer {token}"}
            return (await ask(app, "GET", "/anybody", headers=headers)).status

        assert [await status(key), await status(token)] == [200, 429]
        assert [await status("sk-anything"), await status("sk-other")] == [200, 429]


# What one user may try to reach the other's chats by: any text, and what the other's really are.
IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def shared_server(
    runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    context = running(tmp_path_factory.mktemp("shared"))
    yield runner.run(context.__aenter__())
    runner.run(context.__aexit__(None, None, None))


@settings(max_examples=50, deadline=None)
@given(chat_id=IDS.filter(lambda text: text != "-1" and "\0" not in text), tried=IDS)
def test_nothing_of_another_user_can_be_seen_continued_or_deleted(
    runner: asyncio.Runner, shared_server: Server, chat_id: str, tried: str
):
    runner.run(apart(shared_server, chat_id, tried))


async def apart(server: Server, chat_id: str, tried: str) -> None:
    ada, bob = await server.token(f"ada{uuid4()}"), await server.token(f"bob{uuid4()}")

    async def chat(token: str, name: str) -> Answer:
        path = f"{CHAT}?chat_id={quote(name, safe='')}"
        return await server.ask("POST", path, HELLO, token=token)

    async def ids(token: str) -> list[str]:
        chats = (await server.ask("GET", "/api/chats", token=token)).json["chats"]
        return [chat["id"] for chat in chats]

    assert (await chat(ada, chat_id)).status == 200
    [adas_id] = await ids(ada)
    before = (await server.ask("GET", f"/api/chats/{adas_id}", token=ada)).json
    assert len(before["messages"]) == 2, "there must be something to reach"

    names = [tried, chat_id, adas_id]
    for name in names:
        for method, body in (("GET", None), ("PATCH", {"title": "x"}), ("DELETE", None)):
            answer = await server.ask(method, f"/api/chats/{name}", body, token=bob)
            if name.split("?")[0].strip("/"):  # else it is the address of bob's own list
                assert answer.status == 404, (method, answer.body)
    for name in names:
        await chat(bob, name)
    bobs_ids = await ids(bob)
    assert adas_id not in bobs_ids
    for own in bobs_ids:
        assert (await server.ask("DELETE", f"/api/chats/{own}", token=bob)).status == 204

    assert await ids(ada) == [adas_id]
    assert (await server.ask("GET", f"/api/chats/{adas_id}", token=ada)).json == before
