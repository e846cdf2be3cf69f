import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.errors import (
    ContextOverflow,
    EngineFailure,
    ModelBroken,
    NoModelLoaded,
    Overloaded,
    RateLimited,
    ShuttingDown,
)
from app.storage.models import Login, User
from tests.accounts_app import PASSWORD, Server, running
from tests.databases import KINDS
from tests.fakes import FakeService

QUERY = {"query": "test query"}


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, kind=request.param) as server:
        yield server


async def test_the_documented_workflow(server: Server):
    answer = await server.register("testuser")
    assert (answer.status, answer.json) == (
        200,
        {"message": "User registered successfully", "user": "testuser"},
    )
    answer = await server.login("testuser")
    assert (answer.status, answer.json["token_type"]) == (200, "bearer")
    tokens = answer.json

    answer = await server.ask("POST", "/generate", QUERY, token=tokens["access_token"])
    assert (answer.status, answer.json) == (200, {"content": "Hello you"})
    assert answer.headers["content-type"] == "application/json"

    refresh = {"refresh_token": tokens["refresh_token"]}
    answer = await server.ask("POST", "/refresh", refresh)
    assert answer.status == 200
    assert answer.json["refresh_token"] == tokens["refresh_token"]
    assert answer.json["access_token"] != tokens["access_token"]
    assert (await server.ask("GET", "/me", token=answer.json["access_token"])).status == 200


@pytest.mark.parametrize("stream", ["true", "TRUE", "True", "1"])
async def test_streams_as_documented_without_an_end_mark(server: Server, stream: str):
    token = await server.token("ada")
    answer = await server.ask("POST", f"/generate?stream={stream}", QUERY, token=token)
    assert (answer.status, answer.complete) == (200, True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = answer.body.decode().removesuffix("\n\n").split("\n\n")
    contents = [json.loads(event.removeprefix("data: ")) for event in events]
    assert len(events) > 1, "one event is no stream"
    assert "".join(content.pop("content") for content in contents) == "Hello you"
    assert not any(contents)


async def test_streams_bare_lines_to_those_who_ask_for_ndjson(server: Server):
    answer = await server.ask(
        "POST",
        "/generate?stream=true",
        QUERY,
        token=await server.token("ada"),
        headers={"accept": "application/x-ndjson"},
    )
    assert answer.headers["content-type"] == "application/x-ndjson"
    contents = [json.loads(line)["content"] for line in answer.body.splitlines()]
    assert len(contents) > 1, "one line is no stream"
    assert "".join(contents) == "Hello you"


@pytest.mark.parametrize(
    ("accept", "last"),
    [
        ("*/*", b'data: {"error":"it broke"}\n\n'),
        ("application/x-ndjson", b'{"error":"it broke"}\n'),
    ],
)
async def test_a_failure_in_the_stream_is_a_value_in_it(tmp_path: Path, accept: str, last: bytes):
    async with running(tmp_path, FakeService("Hel", EngineFailure("it broke"))) as server:
        token = await server.token("ada")
        path, headers = "/generate?stream=true", {"accept": accept}
        answer = await server.ask("POST", path, QUERY, token=token, headers=headers)
    assert answer.status == 200
    assert answer.body.endswith(last)


async def test_a_client_that_goes_frees_its_place(tmp_path: Path):
    forever = asyncio.Event()
    async with running(tmp_path, FakeService("Hel", forever)) as server:
        token, gone = await server.token("ada"), asyncio.Event()
        answer = await server.ask(
            "POST",
            "/generate?stream=true",
            QUERY,
            token=token,
            gone=gone,
            on_chunk=lambda _: gone.set(),
        )
        assert not answer.complete
        assert server.service.engine.in_use == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NoModelLoaded(), 503),
        (ContextOverflow(9120, 8192), 413),
        (Overloaded(64, 64), 429),
        (RateLimited("too often", 3), 429),
        (ShuttingDown(), 503),
        (EngineFailure("it broke"), 500),
        (ModelBroken("it lacks a file"), 500),
    ],
)
async def test_errors_before_the_first_byte_are_statuses(
    tmp_path: Path, error: Exception, status: int, monkeypatch: pytest.MonkeyPatch
):
    async def start(*_: object):
        raise error

    async with running(tmp_path) as server:
        monkeypatch.setattr(server.service, "start", start)
        token = await server.token("ada")
        answer = await server.ask("POST", "/generate", QUERY, token=token)
    assert (answer.status, answer.json) == (status, {"detail": str(error)})
    assert ("retry-after" in answer.headers) is hasattr(error, "retry_after_s")


@pytest.mark.parametrize(
    ("query", "body", "detail"),
    [
        ("", {"query": ""}, "query is '', expected string, length >= 1"),
        ("", {"query": 5}, "query is 5, expected string, length >= 1"),
        ("?stream=maybe", QUERY, "stream is 'maybe', expected true or false"),
    ],
)
async def test_a_wrong_field_is_named(server: Server, query: str, body: object, detail: str):
    token = await server.token("ada")
    answer = await server.ask("POST", f"/generate{query}", body, token=token)
    assert (answer.status, answer.json) == (400, {"detail": detail})


@pytest.mark.parametrize("name", ["testuser", "TESTUSER", "TestUser"])
async def test_a_taken_name_is_refused_in_any_capitals(server: Server, name: str):
    await server.register("testuser")
    answer = await server.register(name)
    assert (answer.status, answer.json) == (400, {"detail": "Username already taken"})


async def test_of_ten_registrations_of_a_name_at_once_one_succeeds(server: Server):
    answers = await asyncio.gather(*(server.register("ada") for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200, *[400] * 9]


@pytest.mark.parametrize(
    ("username", "password", "words"),
    [
        ("", PASSWORD, "username is ''"),
        ("a b", PASSWORD, "username is 'a b'"),
        ("-ada", PASSWORD, "username is '-ada'"),
        ("a" * 65, PASSWORD, "username is 'aaa"),
        ("a\0b", PASSWORD, r"username is 'a\x00b'"),
        ("ada", "1234567", "password has 7 characters, expected 8 to 1024"),
        ("ada", "x" * 1025, "password has 1025 characters, expected 8 to 1024"),
    ],
)
async def test_bad_shapes_are_refused_without_the_password_in_the_message(
    server: Server, username: str, password: str, words: str
):
    answer = await server.register(username, password)
    assert answer.status == 400
    assert answer.json["detail"].startswith(words)
    assert password not in answer.json["detail"]


async def test_names_and_passwords_of_any_script_work(server: Server):
    assert (await server.register("Zoë.Бахор", "пароль😀密码")).status == 200
    assert (await server.login("zoë.бахор", "пароль😀密码")).status == 200
    raw = "username=Zoë.Бахор&password=пароль😀密码".encode()  # as curl sends it, unescaped
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert (await server.ask("POST", "/login", raw=raw, headers=headers)).status == 200


async def test_login_takes_multipart_and_json_too(server: Server):
    await server.register("ada")
    body = {"username": "ada", "password": PASSWORD}
    assert (await server.ask("POST", "/login", body)).status == 200
    parts = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in body.items()
    )
    answer = await server.ask(
        "POST",
        "/login",
        raw=f"{parts}--x--\r\n".encode(),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert answer.status == 200


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (b"", "application/x-www-form-urlencoded"),
        (b"username=ada", "application/x-www-form-urlencoded"),
        (b"username=\xff&password=%ff", "application/x-www-form-urlencoded"),
        (b"a=1&" * 100, "application/x-www-form-urlencoded"),
        (b"{}", "text/plain"),
        (b"nonsense", "multipart/form-data"),
    ],
)
async def test_a_login_that_is_no_form_is_refused(server: Server, raw: bytes, content_type: str):
    answer = await server.ask("POST", "/login", raw=raw, headers={"content-type": content_type})
    assert answer.status == 400
    assert list(answer.json) == ["detail"]


async def test_unknown_name_and_wrong_password_are_one_answer(server: Server):
    await server.register("ada")
    unknown, wrong = await server.login("nobody"), await server.login("ada", "wrongpassword")
    assert unknown.status == wrong.status == 401
    assert unknown.body == wrong.body == b'{"detail":"Incorrect username or password"}'
    assert unknown.headers["www-authenticate"] == wrong.headers["www-authenticate"] == "Bearer"
    assert (await server.login("\0\ud800".encode(errors="replace").decode())).status == 401


async def test_unknown_name_and_wrong_password_take_the_same_time(tmp_path: Path):
    cost = {"argon2_memory_kib": 32_768, "argon2_time_cost": 2}
    async with running(tmp_path, **cost) as server:
        await server.register("ada")
        times: dict[str, list[float]] = {"ada": [], "nobody": []}
        known, unknown = 0.0, 1.0
        for tries in range(1, 51):  # the least of each: a busy machine delays some
            for name, taken in times.items():
                before = time.perf_counter()
                await server.login(name, "wrongpassword")
                taken.append(time.perf_counter() - before)
            known, unknown = min(times["ada"]), min(times["nobody"])
            if tries >= 5 and 0.5 < known / unknown < 2:
                break
    assert known > 0.01, "a hash must take time or this proves nothing"
    assert 0.5 < known / unknown < 2, f"known {known:.4f} s, unknown {unknown:.4f} s"


async def test_wrong_passwords_run_out_for_an_account_at_an_address(tmp_path: Path):
    limits = {"login_attempts_per_account": 3, "trusted_proxies": "127.0.0.1"}
    async with running(tmp_path, **limits) as server:
        await server.register("ada")
        here, there = ({"x-forwarded-for": f"192.0.2.{number}"} for number in (1, 2))
        for _ in range(3):
            assert (await server.login("Ada", "wrongpassword", **here)).status == 401
        answer = await server.login("ada", **here)
        assert (answer.status, list(answer.json)) == (429, ["detail"])
        assert 0 < int(answer.headers["retry-after"]) <= 61
        assert (await server.login("ada", **there)).status == 200


async def test_attempts_run_out_for_an_address_and_only_a_trusted_proxy_names_another(
    tmp_path: Path,
):
    limit = {"login_attempts_per_address": 2}
    async with running(tmp_path / "a", **limit) as server:
        for number, status in enumerate([401, 401, 429]):
            forwarded = {"x-forwarded-for": f"192.0.2.{number}"}
            assert (await server.login(f"user{number}", **forwarded)).status == status
    async with running(tmp_path / "b", trusted_proxies="127.0.0.1", **limit) as server:
        for number in range(5):
            forwarded = {"x-forwarded-for": f"192.0.2.{number}"}
            assert (await server.login(f"user{number}", **forwarded)).status == 401


async def test_a_closed_registration_is_refused(tmp_path: Path):
    async with running(tmp_path, registration="closed") as server:
        answer = await server.register("ada")
        assert (answer.status, list(answer.json)) == (403, ["detail"])
        await server.auth.accounts.create("ada", PASSWORD)
        assert (await server.login("ada")).status == 200


async def test_old_parameters_are_rehashed_at_login(tmp_path: Path):
    async with running(tmp_path) as server:
        await server.register("ada")
    async with running(tmp_path, argon2_memory_kib=16) as server:
        assert (await server.login("ada")).status == 200
        async with server.database.read() as session:
            stored = await session.scalar(select(User.password_hash))
        assert "m=16," in stored
        assert (await server.login("ada")).status == 200


async def test_refresh_reuse_revokes_the_family_through_the_route(tmp_path: Path):
    async with running(tmp_path, rotate_refresh_tokens=True) as server:
        await server.register("ada")
        first = (await server.login("ada")).json
        other = (await server.login("ada")).json
        second = (
            await server.ask("POST", "/refresh", {"refresh_token": first["refresh_token"]})
        ).json
        assert second["refresh_token"] != first["refresh_token"], "it must rotate"

        stolen = await server.ask("POST", "/refresh", {"refresh_token": first["refresh_token"]})
        assert stolen.status == 401

        # the revocation outlived the refusal: neither the newest refresh token nor any access
        # token of the family holds, and the user's other login does
        newest = await server.ask("POST", "/refresh", {"refresh_token": second["refresh_token"]})
        assert newest.status == 401
        for token in (first["access_token"], second["access_token"]):
            assert (await server.ask("GET", "/me", token=token)).status == 401
        assert (await server.ask("GET", "/me", token=other["access_token"])).status == 200
        async with server.database.read() as session:
            assert len((await session.scalars(select(Login))).all()) == 1


async def test_of_two_rotations_at_once_one_succeeds(tmp_path: Path):
    async with running(tmp_path, rotate_refresh_tokens=True) as server:
        await server.register("ada")
        refresh = {"refresh_token": (await server.login("ada")).json["refresh_token"]}
        answers = await asyncio.gather(*(server.ask("POST", "/refresh", refresh) for _ in range(5)))
        assert sorted(answer.status for answer in answers) == [200, 401, 401, 401, 401]


async def test_refresh_tokens_are_stored_hashed(server: Server):
    await server.register("ada")
    token = (await server.login("ada")).json["refresh_token"]
    async with server.database.read() as session:
        stored = (await session.scalars(select(Login))).one().refresh_hash
    assert len(stored) == 64
    assert stored not in token


async def test_logout_ends_this_login_alone(server: Server):
    await server.register("ada")
    here, there = (await server.login("ada")).json, (await server.login("ada")).json
    assert (await server.ask("POST", "/logout", token=here["access_token"])).status == 200
    assert (await server.ask("GET", "/me", token=here["access_token"])).status == 401
    refresh = {"refresh_token": here["refresh_token"]}
    assert (await server.ask("POST", "/refresh", refresh)).status == 401
    assert (await server.ask("GET", "/me", token=there["access_token"])).status == 200


async def test_me_says_who_i_am(server: Server):
    answer = await server.ask("GET", "/me", token=await server.token("Ada"))
    assert answer.status == 200
    assert (answer.json["username"], answer.json["role"]) == ("Ada", "user")


async def test_a_new_password_ends_every_login_and_gives_a_new_one(server: Server):
    await server.register("ada")
    old = (await server.login("ada")).json
    change = {"current_password": PASSWORD, "new_password": "anotherpassword"}
    answer = await server.ask("POST", "/me/password", change, token=old["access_token"])
    assert answer.status == 200
    assert (await server.ask("GET", "/me", token=answer.json["access_token"])).status == 200
    assert (await server.ask("GET", "/me", token=old["access_token"])).status == 401
    refresh = {"refresh_token": old["refresh_token"]}
    assert (await server.ask("POST", "/refresh", refresh)).status == 401
    assert (await server.login("ada")).status == 401
    assert (await server.login("ada", "anotherpassword")).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/me/password", {"current_password": "wrongpassword", "new_password": "anotherpassword"}),
        ("/me/delete", {"password": "wrongpassword"}),
    ],
)
async def test_changes_need_the_password_and_attempts_are_counted(
    tmp_path: Path, path: str, body: object
):
    async with running(tmp_path, login_attempts_per_account=3) as server:
        token = await server.token("ada")
        statuses = [(await server.ask("POST", path, body, token=token)).status for _ in range(4)]
        assert statuses == [401, 401, 401, 429]
        assert (await server.ask("GET", "/me", token=token)).status == 200


async def test_a_deleted_account_is_gone_and_its_name_is_free(server: Server):
    token = await server.token("ada")
    answer = await server.ask("POST", "/me/delete", {"password": PASSWORD}, token=token)
    assert answer.status == 200
    assert (await server.ask("GET", "/me", token=token)).status == 401
    assert (await server.login("ada")).status == 401
    assert (await server.register("ada")).status == 200
    assert (await server.ask("GET", "/me", token=token)).status == 401


async def test_rate_limit_is_per_user_with_headers_on_every_answer(tmp_path: Path):
    async with running(tmp_path, rate_limit_per_minute=2) as server:
        ada, bob = await server.token("ada"), await server.token("bob")
        for expected in (
            (200, "1", {"query": "x"}),
            (400, "0", {"query": ""}),
            (429, "0", {"query": "x"}),
        ):
            status, remaining, body = expected
            answer = await server.ask("POST", "/generate?stream=true", body, token=ada)
            assert answer.status == status
            assert answer.headers["x-ratelimit-limit"] == "2"
            assert answer.headers["x-ratelimit-remaining"] == remaining
            assert abs(int(answer.headers["x-ratelimit-reset"]) - time.time()) < 62
        assert 0 < int(answer.headers["retry-after"]) <= 61
        answer = await server.ask("POST", "/generate", QUERY, token=bob)
        assert (answer.status, answer.headers["x-ratelimit-remaining"]) == (200, "1")
        assert "x-ratelimit-limit" not in (await server.ask("GET", "/me", token=ada)).headers


async def test_every_route_is_documented_with_its_body_and_refusals(server: Server):
    document = server.app.openapi_schema.to_schema()
    for path in ("/register", "/login", "/refresh", "/me/password", "/me/delete", "/generate"):
        operation = document["paths"][path]["post"]
        assert operation["summary"]
        [content] = operation["requestBody"]["content"].values()
        assert all(
            body["properties"] for body in content["schema"].get("oneOf", [content["schema"]])
        )
        assert {"200", "400"} <= operation["responses"].keys()
    login = document["paths"]["/login"]["post"]["requestBody"]["content"]
    assert list(login) == ["application/x-www-form-urlencoded"]
    assert "bearer" in document["components"]["securitySchemes"]
