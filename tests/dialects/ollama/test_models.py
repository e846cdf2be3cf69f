"""Names, lists of models, what loads and unloads them, and the hello at `/`."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ollama import ListResponse, ProcessResponse, ShowResponse

from app.dialects.kit.passed_over import IGNORED
from app.dialects.ollama import keep_alive
from app.dialects.ollama.keep_alive import seconds
from app.errors import InvalidParameter
from tests.accounts_app import PASSWORD, running
from tests.asgi_client import ask
from tests.dialects.openai.scripted import HI, ScriptedModels, ScriptedService
from tests.fakes import MODEL_ID, FakeService, until_eventually
from tests.hosts import app_over, host_over

CHAT = {"model": MODEL_ID, "messages": HI, "stream": False}


@pytest.mark.parametrize(
    "name", [MODEL_ID, f"{MODEL_ID}:latest", "fake", "Fake:latest", "TEST/fake", "fake:none"]
)
async def test_names_with_and_without_tag_and_publisher_are_known(name: str):
    app = app_over(host_over(ScriptedService(), ScriptedModels()))
    answer = await ask(app, "POST", "/api/chat", {**CHAT, "model": name})
    assert (answer.status, answer.json["model"]) == (200, name)


@pytest.mark.parametrize("name", ["nothing", f"{MODEL_ID}:int4", "test", "test/fake:latest:x"])
async def test_other_names_are_a_404(name: str):
    app = app_over(host_over(ScriptedService(), ScriptedModels()))
    for path in ("/api/chat", "/api/show"):
        answer = await ask(app, "POST", path, {**CHAT, "model": name})
        assert (answer.status, list(answer.json)) == (404, ["error"])


async def test_lists_have_the_published_fields():
    app = app_over(host_over(ScriptedService(), ScriptedModels()))
    [first, second] = (await ask(app, "GET", "/api/tags")).json["models"]
    assert [first["name"], second["name"]] == [f"{MODEL_ID}:latest", "test/other:latest"]
    assert first.keys() - {"name"} <= ListResponse.Model.model_fields.keys()
    assert len(first["digest"]) == 64
    assert first["digest"] != second["digest"]
    [loaded] = (await ask(app, "GET", "/api/ps")).json["models"]
    assert loaded.keys() <= ProcessResponse.Model.model_fields.keys()
    assert (loaded["context_length"], loaded["expires_at"][:4]) == (40, "9999")
    shown = (await ask(app, "POST", "/api/show", {"model": MODEL_ID})).json
    parsed = ShowResponse.model_validate(shown)
    assert parsed.capabilities == ["completion", "tools"]
    assert parsed.modelinfo["fake.context_length"] == 40
    assert "version" in (await ask(app, "GET", "/api/version")).json


async def test_whoever_asks_for_no_page_gets_the_hello():
    app = app_over(host_over(ScriptedService(), ScriptedModels()))
    for headers in ({}, {"accept": "*/*"}, {"accept": "application/json"}):
        for method in ("GET", "HEAD"):
            answer = await ask(app, method, "/", headers=headers)
            assert answer.status == 200
            assert answer.headers["content-type"].startswith("text/plain")
    answer = await ask(app, "GET", "/", headers={"accept": "*/*"})
    assert answer.body == b"Ollama is running"
    page = await ask(app, "GET", "/", headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")


async def test_neptuns_chats_stay_where_they_are(tmp_path: Path):
    async with running(tmp_path) as server:
        answer = await server.ask("GET", "/api/chats", token=await server.token("ada"))
        assert (answer.status, list(answer.json)) != (200, ["error"])
        assert answer.status == 200
        assert (await server.ask("GET", "/api/nowhere")).json["statusCode"] == 404
        assert list((await server.ask("GET", "/api/create")).json) == ["error"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0, 0.0),
        (-1, None),
        (300, 300.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("-1m", None),
        ("10", 10.0),
        ("-1", None),
        (1e300, None),
        ("9" * 60 + "h", None),
    ],
)
def test_durations_are_read_as_clients_write_them(given: Any, expected: float | None):
    assert seconds(given) == expected


@pytest.mark.parametrize("given", ["", "m", "5 m", "5x", "-", "forever", "²"])
def test_other_durations_are_refused(given: str):
    with pytest.raises(InvalidParameter):
        seconds(given)


async def test_a_long_duration_is_refused_by_its_length(tmp_path: Path):
    async with running(tmp_path) as server:
        body = {"model": MODEL_ID, "keep_alive": "1" * 100_000}
        async with asyncio.timeout(60):  # matching it would take minutes
            answer = await server.ask("POST", "/api/generate", body)
        assert answer.status == 400
        assert answer.json["error"].startswith("keep_alive is '1111")


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_an_empty_request_loads_or_unloads(path: str):
    service = FakeService("x")
    app = app_over(host_over(service))
    answer = await ask(app, "POST", path, {"model": MODEL_ID})
    assert (answer.status, answer.json["done_reason"]) == (200, "load")
    assert service.catalog.model is not None
    answer = await ask(app, "POST", path, {"model": MODEL_ID, "keep_alive": 0})
    assert (answer.status, answer.json["done_reason"]) == (200, "unload")
    assert service.catalog.model is None
    assert service.engine.submitted == []


async def test_a_model_leaves_when_it_was_unused_for_as_long_as_was_said(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(keep_alive, "_LOOK_EVERY_S", 0.005)
    service, gate = FakeService("x"), asyncio.Event()
    service.engine._script = ("x", gate)
    host = host_over(service)
    app = app_over(host)
    answering = asyncio.create_task(ask(app, "POST", "/api/chat", {**CHAT, "keep_alive": "20ms"}))
    await asyncio.sleep(0.1)
    assert service.catalog.model is not None, "it is in use"
    gate.set()
    assert (await answering).status == 200
    await until_eventually(lambda: service.catalog.model is None)


async def test_on_a_closed_server_only_administrators_say_how_long_a_model_stays(tmp_path: Path):
    async with running(tmp_path, require_auth=True) as server:
        token = await server.token("ada")
        answer = await server.ask("POST", "/api/chat", {**CHAT, "keep_alive": 0}, token=token)
        assert (answer.status, answer.headers[IGNORED]) == (200, "keep_alive")
        empty = {"model": MODEL_ID, "keep_alive": 0}
        answer = await server.ask("POST", "/api/generate", empty, token=token)
        assert answer.json["done_reason"] == "load"


async def test_only_the_machine_itself_changes_the_models_of_an_open_server(tmp_path: Path):
    body = {"model": "no/such"}
    async with running(tmp_path / "proxied", trusted_proxies="127.0.0.1") as server:
        # whom a proxy speaks for is elsewhere, whatever it says
        for headers in ({}, {"x-forwarded-for": "::1"}):
            answer = await server.ask("DELETE", "/api/delete", body, headers=headers)
            assert answer.status == 403
    async with running(tmp_path / "open") as server:
        answer = await server.ask("DELETE", "/api/delete", body)
        assert answer.status == 404, "nothing but the model is wrong"
        far = {"x-forwarded-for": "192.0.2.1"}
        for method, path in (
            ("DELETE", "/api/delete"),
            ("POST", "/api/pull"),
            ("POST", "/api/copy"),
        ):
            answer = await server.ask(method, path, body, headers=far)
            assert (answer.status, list(answer.json)) == (403, ["error"])
        other = {"origin": "http://example.org", "host": "127.0.0.1"}
        assert (await server.ask("DELETE", "/api/delete", body, headers=other)).status == 403
    async with running(tmp_path / "closed", require_auth=True) as server:
        user = await server.auth.accounts.create("bob", PASSWORD)
        key, _ = await server.auth.api_keys.create(user.id, "x")
        assert (await server.ask("DELETE", "/api/delete", body, token=key)).status == 403


@pytest.mark.parametrize("sent", ["application/x-www-form-urlencoded", "text/plain", None])
async def test_curl_need_not_say_that_it_sends_json(tmp_path: Path, sent: str | None):
    headers = {"content-type": sent} if sent else {}
    raw = msgspec.json.encode({"model": MODEL_ID})
    async with running(tmp_path) as server:
        answer = await server.ask("POST", "/api/show", raw=raw, headers=headers)
        assert answer.status == 200, answer.body
        for of_a_page in ({"origin": "http://example.org"}, {"sec-fetch-site": "cross-site"}):
            answer = await server.ask("POST", "/api/show", raw=raw, headers=headers | of_a_page)
            assert answer.status == 400
