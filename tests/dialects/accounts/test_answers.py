"""What answers about accounts carry, and what a failure never tells."""

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest
from sqlalchemy import text

from tests.accounts_app import CHAT, HELLO, PASSWORD, Server, running
from tests.databases import KINDS


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as server:
        yield server


async def test_no_cache_keeps_a_token_a_key_a_chat_or_a_refusal(server: Server):
    ada = {"username": "ada", "password": PASSWORD}
    token = await server.token("ada")
    tokens = (await server.login("ada")).json
    change = {"current_password": PASSWORD, "new_password": PASSWORD}
    refresh = {"refresh_token": tokens["refresh_token"]}
    for status, method, path, body, sent in (
        (400, "POST", "/register", ada, ""),
        (200, "POST", "/register", {**ada, "username": "bob"}, ""),
        (200, "POST", "/login", ada, ""),
        (401, "POST", "/login", {**ada, "password": "x"}, ""),
        (400, "POST", "/login", {}, ""),
        (200, "POST", "/refresh", refresh, ""),
        (401, "POST", "/refresh", {"refresh_token": "x"}, ""),
        (401, "GET", "/me", None, ""),
        (200, "GET", "/me", None, token),
        (405, "PUT", "/me", None, token),
        (404, "GET", "/me/nothing", None, token),
        (413, "POST", "/me/keys", {"name": "x" * 70_000}, token),
        (200, "POST", "/me/keys", {"name": "x"}, token),
        (200, "GET", "/me/keys", None, token),
        (404, "DELETE", "/me/keys/1", None, token),
        (404, "GET", "/api/chats/1", None, token),
        (200, "POST", f"{CHAT}?chat_id=1", HELLO, token),
        (200, "GET", "/api/chats", None, token),
        (200, "GET", "/api/chats/1", None, token),
        (401, "GET", "/api/chats", None, ""),
        (200, "POST", "/me/password", change, token),
        (401, "POST", "/logout", None, token),
    ):
        answer = await server.ask(method, path, body, token=sent)
        assert answer.status == status, (method, path, answer.body)
        stream = path.startswith(CHAT)
        expected = "no-cache" if stream else "no-store"
        assert answer.headers["cache-control"] == expected, (method, path)


@pytest.mark.parametrize("claim", ["sub", "sid", "exp", "typ", "iat", "jti", "aud", "iss"])
@pytest.mark.parametrize("value", [None, [], {}, 1e300, 2**70, -1, "9" * 300])
async def test_signed_tokens_with_odd_claims_are_no_fault_of_ours(
    server: Server, claim: str, value: object
):
    await server.register("ada")
    for kind, token in (await server.login("ada")).json.items():
        if kind == "token_type":
            continue
        body = jwt.decode(token, options={"verify_signature": False})
        headers = {"kid": jwt.get_unverified_header(token)["kid"]}
        odd = jwt.api_jws.encode(
            json.dumps({**body, claim: value}).encode(), b"s" * 32, "HS256", headers=headers
        )
        statuses = [
            (await server.ask("GET", "/me", token=odd)).status,
            (await server.ask("POST", "/refresh", {"refresh_token": odd})).status,
        ]
        if (claim, type(value)) in {("iat", int), ("jti", str)}:
            continue  # they mean nothing to us
        assert statuses == [401, 401]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failed_insert_puts_no_hash_into_the_log(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    async with running(tmp_path, kind=kind) as server:
        async with server.database.write() as session:  # whatever is inserted is refused
            if kind == "postgres":
                await session.execute(text("ALTER TABLE users ADD CHECK (username <> 'ada')"))
            else:
                refuse = "SELECT RAISE(ABORT, 'the disk is full')"
                await session.execute(
                    text(f"CREATE TRIGGER full BEFORE INSERT ON users BEGIN {refuse}; END")
                )
        answer = await server.register("ada")
    assert (answer.status, answer.json) == (500, {"detail": "Internal Server Error"})
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(failures) == 1
    assert "INSERT INTO users" in caplog.text, "the failure itself must be told"
    assert "$argon2" not in caplog.text
