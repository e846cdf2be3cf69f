"""What happens at the doors is written down: event, who, address, request id; and no secret."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.auth import security_log
from app.auth.security_log import SUSPICIOUS, Event, Visitor
from app.storage.models import Role
from tests.accounts_app import PASSWORD, Server, running

LINE = re.compile(r'[a-z_]+(?: [a-z_]+="(?:[^"\\]|\\.)*")*')


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    limits = {"login_attempts_per_account": 3, "trusted_proxies": "127.0.0.1"}
    async with running(tmp_path, rotate_refresh_tokens=True, **limits) as server:
        yield server


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "app.security")
    return caplog


def events(log: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    """The events so far, each read back from its line; forgets them."""
    found = []
    for record in log.records:
        if record.name == "app.security":
            line = record.getMessage()
            assert LINE.fullmatch(line), line
            event, *pairs = re.split(r' (?=[a-z_]+=")', line)
            values = {
                name: json.loads(value) for name, _, value in (p.partition("=") for p in pairs)
            }
            assert record.security == {"event": event, **values}
            assert (record.levelno >= logging.WARNING) is (event in SUSPICIOUS)
            found.append({"event": event, **values})
    log.clear()
    return found


async def asked(
    server: Server, log: pytest.LogCaptureFixture, method: str, path: str, *arguments, **options
) -> dict[str, str]:
    """Ask something; returns the only event that it caused, without the request's own values."""
    log.clear()
    headers = {"x-request-id": "req-7", "x-forwarded-for": "192.0.2.7"}
    await server.ask(method, path, *arguments, headers=headers, **options)
    [event] = events(log)
    assert (event.pop("address"), event.pop("request_id")) == ("192.0.2.7", "req-7")
    return event


async def test_everything_at_the_doors_is_written_down(
    server: Server, log: pytest.LogCaptureFixture
):
    ada = {"username": "ada", "password": PASSWORD}
    event = await asked(server, log, "POST", "/register", ada)
    user_id = event["user_id"]
    assert event == {"event": "registered", "user": "ada", "user_id": user_id}
    who = {"user": "ada", "user_id": user_id}
    event = await asked(server, log, "POST", "/register", ada)
    assert event == {"event": "registration_refused", "reason": "username_taken"}

    assert await asked(server, log, "POST", "/login", ada) == {"event": "signed_in", **who}
    wrong = {"username": "ada", "password": "wrongpassword"}
    refused = {"event": "sign_in_refused", **who, "reason": "wrong_credentials"}
    assert [await asked(server, log, "POST", "/login", wrong) for _ in range(3)] == [refused] * 3
    throttled = {"event": "sign_in_throttled", **who, "reason": "rate_limited"}
    assert await asked(server, log, "POST", "/login", ada) == throttled
    nobody = {"username": "hunter2 is my password", "password": "x"}
    event = await asked(server, log, "POST", "/login", nobody)
    assert event == {"event": "sign_in_refused", "reason": "wrong_credentials"}

    tokens = (await server.login("ada")).json
    token, refresh = tokens["access_token"], {"refresh_token": tokens["refresh_token"]}
    event = await asked(server, log, "POST", "/refresh", {"refresh_token": "x"})
    assert event == {"event": "refresh_refused", "reason": "not_authenticated"}
    event = await asked(server, log, "POST", "/refresh", refresh)
    assert event == {"event": "refreshed", "user_id": user_id}
    await server.ask("POST", "/refresh", refresh)
    reused, refused = events(log)
    assert (reused["event"], reused["user_id"]) == ("refresh_reused", user_id)
    assert refused["event"] == "refresh_refused"

    event = await asked(server, log, "GET", "/me", token=token)
    assert event == {
        "event": "access_refused",
        "path": "/me",
        "reason": "access token was revoked",
    }
    token = (await server.login("ada")).json["access_token"]
    event = await asked(server, log, "POST", "/me/keys", {"name": "x"}, token=token)
    key_id = event["key_id"]
    assert event == {"event": "key_created", **who, "key_id": key_id}
    key = (await server.ask("POST", "/me/keys", {"name": "x"}, token=token)).json["key"]
    event = await asked(server, log, "GET", "/me/keys", token=key)
    assert (event["event"], event["user"], event["path"]) == ("forbidden", "ada", "/me/keys")
    event = await asked(server, log, "DELETE", f"/me/keys/{key_id}", token=token)
    assert event == {"event": "key_revoked", **who, "key_id": key_id}

    change = {"current_password": "wrongpassword", "new_password": "anotherpassword"}
    event = await asked(server, log, "POST", "/me/password", change, token=token)
    assert event == {"event": "proof_refused", **who, "reason": "wrong_credentials"}
    change["current_password"] = PASSWORD
    event = await asked(server, log, "POST", "/me/password", change, token=token)
    assert event == {"event": "password_changed", **who}
    token = (await server.login("ada", "anotherpassword")).json["access_token"]
    assert await asked(server, log, "POST", "/logout", token=token) == {
        "event": "signed_out",
        **who,
    }
    token = (await server.login("ada", "anotherpassword")).json["access_token"]
    body = {"password": "anotherpassword"}
    event = await asked(server, log, "POST", "/me/delete", body, token=token)
    assert event == {"event": "account_deleted", **who}


async def test_refusals_of_generations_and_of_managing_are_written_down(
    tmp_path: Path, log: pytest.LogCaptureFixture
):
    settings = {"require_auth": True, "rate_limit_per_minute": 1, "trusted_proxies": "127.0.0.1"}
    async with running(tmp_path, **settings) as server:
        token = await server.token("ada")
        event = await asked(server, log, "POST", "/models/unload", token=token)
        assert event["event"] == "forbidden"
        assert event["reason"] == "user 'ada' is no administrator"
        assert (await asked(server, log, "POST", "/generate", {"prompt": "x"}))["event"] == (
            "access_refused"
        )
        await server.ask("POST", "/generate", {"query": "x"}, token=token)
        event = await asked(server, log, "POST", "/generate", {"query": "x"}, token=token)
        assert (event["event"], event["user"]) == ("rate_limited", "ada")
    async with running(tmp_path, registration="closed", trusted_proxies="127.0.0.1") as server:
        bob = {"username": "bob", "password": PASSWORD}
        event = await asked(server, log, "POST", "/register", bob)
        assert event == {"event": "registration_refused", "reason": "forbidden"}


async def test_a_request_without_a_good_id_gets_one(server: Server, log: pytest.LogCaptureFixture):
    for sent in ({}, {"x-request-id": "a b"}, {"x-request-id": "x" * 129}, {"x-request-id": "é"}):
        await server.ask("GET", "/me", headers=sent)
        [event] = events(log)
        assert re.fullmatch(r"req_[0-9a-f]{32}", event["request_id"])


async def test_the_id_is_the_one_that_the_client_is_told(
    tmp_path: Path, log: pytest.LogCaptureFixture
):
    async with running(tmp_path, require_auth=True) as server:
        answer = await server.ask("GET", "/v1/models")
        [event] = events(log)
    assert answer.headers["x-request-id"] == event["request_id"]


async def test_no_secret_is_ever_written(server: Server, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    await server.register("ada", "first secret")
    tokens = (await server.login("ada", "first secret")).json
    token = tokens["access_token"]
    key = (await server.ask("POST", "/me/keys", {"name": "x"}, token=token)).json["key"]
    await server.login("third secret", "second secret")
    await server.login("ada", "second secret")
    await server.login("ada", "x" * 1025 + "second secret")
    await server.register("fourth secret", "second secret")
    for sent in (token[:-3] + "abc", key[:-3] + "abc", key + "x", f"{token}x"):
        await server.ask("GET", "/me", token=sent)
    await server.ask("POST", "/refresh", {"refresh_token": tokens["refresh_token"][:-3] + "abc"})
    change = {"current_password": "second secret", "new_password": "fifth secret"}
    await server.ask("POST", "/me/password", change, token=token)
    await server.ask("POST", "/me/delete", {"password": "second secret"}, token=token)
    assert "sign_in_refused" in caplog.text, "something must have been written"
    written = [record.getMessage() for record in caplog.records if record.name != "aiosqlite"]
    for secret in (" secret", token[20:40], tokens["refresh_token"][-30:-3], key[11:40], "$argon2"):
        assert not [line for line in written if secret in line], secret


def test_nothing_that_is_sent_can_begin_a_line_or_end_a_value(log: pytest.LogCaptureFixture):
    visitor = Visitor(address='1"\n[INFO]', request_id="x")
    sent = 'a"b\\c\r\nsigned_in user="root" \u2028\u0085\x00\x1b[2J\u202eé'
    security_log.note(Event.SIGN_IN_REFUSED, visitor, user=sent, reason=None, path="y" * 100_000)
    [record] = log.records
    line = record.getMessage()
    assert line.isascii()
    assert line.isprintable()
    [event] = events(log)
    assert event["user"] == sent
    assert event["path"] == "y" * 200
    assert "reason" not in event


def test_what_operators_do_is_written_to_standard_error(tmp_path: Path):
    environment = {
        **os.environ,
        "LLMHOST_DATA_DIR": str(tmp_path),
        "LLMHOST_ARGON2_MEMORY_KIB": "64",
    }

    def operator(*arguments: str) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=Path(__file__).parents[3],
            env=environment,
            input="testpassword\n",
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout, done.stderr

    who = r'user="ada" user_id="[0-9a-f-]{36}"'
    key = rf'{who} key_id="[0-9a-f-]{{36}}"'
    for arguments, event in (
        (("users", "create", "ada"), rf'user_created {who} role="user"'),
        (("users", "promote", "ada"), rf'role_changed {who} role="{Role.ADMIN}"'),
        (("users", "reset-password", "ada"), rf"password_reset {who}"),
        (("keys", "create", "ada", "laptop"), rf"key_created {key}"),
        (("keys", "revoke", "ada", "all"), rf"key_revoked {key}"),
        (("secrets", "rotate"), "secrets_rotated"),
    ):
        out, err = operator(*arguments)
        line = rf'\[INFO\] app\.security {event} operator="uid {os.getuid()}"'
        assert re.fullmatch(line, err.splitlines()[0]), err
        assert "sk-llmhost-" not in err, out
    assert operator("users", "list")[1] == "", "only changes are"
