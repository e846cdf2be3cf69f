"""The application as it is put together: who may manage models, and what stays open."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.asgi import create_app
from app.cli.main import main
from app.settings import Settings
from tests.accounts_app import Server
from tests.asgi_client import ask
from tests.fakes import BYTES
from tests.hosts import CHEAP
from tests.tiny_model import write_tiny_model

MODEL = "tiny/random"


@asynccontextmanager
async def running(folder: Path, **settings: object) -> AsyncIterator[Server]:
    write_tiny_model(folder / "models", MODEL, vocab_size=258, tokenizer=BYTES)
    values = {name: getattr(CHEAP, name) for name in CHEAP.__struct_fields__}
    values |= {"data_dir": folder, "models_dir": folder / "models", "model": "", "slots": 2}
    app = create_app(Settings(**{**values, **settings}))
    async with app.lifespan():
        yield Server(app, auth=None, database=None, service=None)


async def test_an_open_server_manages_models_for_everybody(tmp_path):
    async with running(tmp_path) as server:
        assert (await server.ask("GET", "/models/current")).status == 404
        assert (await server.ask("POST", "/models/load", {"model_id": MODEL})).status == 200
        body = {"prompt": "Hi", "max_length": 3}
        assert (await server.ask("POST", "/generate", body)).status == 200
        info = (await server.ask("GET", "/system/info")).json
        assert (info["active_model"], info["request_count"]) == (MODEL, 1)
        answer = await server.ask("POST", "/models/unload")
        assert answer.json["status"] == "Model unloaded successfully"


async def test_a_closed_server_manages_models_for_administrators_alone(tmp_path, monkeypatch):
    async with running(tmp_path, require_auth=True) as server:
        token = await server.token("ada")
        load = ("POST", "/models/load", {"model_id": MODEL})
        for path in ("/models/current", "/models/available", "/system/info"):
            assert (await server.ask("GET", path)).status == 401
        assert (await server.ask("GET", "/models/available", token=token)).status == 200
        assert (await server.ask(*load)).status == 401
        answer = await server.ask(*load, token=token)
        assert (answer.status, answer.json) == (403, {"detail": "user 'ada' is no administrator"})
        assert (await ask(server.app, "GET", "/health")).status == 200

        monkeypatch.setenv("LLMHOST_DATA_DIR", str(tmp_path))
        monkeypatch.setenv("LLMHOST_JWT_SECRET", CHEAP.jwt_secret)
        promoted = await asyncio.to_thread(main, ["users", "promote", "ada"])
        assert promoted == 0
        assert (await server.ask(*load, token=token)).status == 200
        assert (await server.ask("POST", "/models/unload", token=token)).status == 200


HERE = "127.0.0.1:8000"


@pytest.mark.parametrize("path", ["/models/load", "/models/unload"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "same-origin", "origin": f"http://{HERE}"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        # what browsers send where they don't trust the connection: over plain HTTP to a network
        ({"origin": f"http://{HERE}"}, 200),
        ({"origin": "http://127.0.0.1:3000"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
async def test_only_pages_of_this_very_origin_manage_models(tmp_path, path, headers, status):
    async with running(tmp_path) as server:
        body = {"model_id": MODEL} if path == "/models/load" else None
        answer = await server.ask("POST", path, body, headers={"host": HERE, **headers})
        assert answer.status == status


async def test_options_name_every_method_of_a_path(tmp_path):
    async with running(tmp_path) as server:
        answer = await server.ask("OPTIONS", "/api/chats/1", token=await server.token("ada"))
        assert (answer.status, answer.headers["allow"]) == (
            204,
            "DELETE, GET, HEAD, OPTIONS, PATCH, PUT",
        )


async def test_by_default_only_the_api_whose_document_has_a_limit_has_one(tmp_path):
    limits = {"rate_limit_per_minute": None, "rate_limit_burst": None}
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    async with running(tmp_path, **limits) as server:
        local = await server.ask("POST", "/chat", chat)
        assert local.headers["x-ratelimit-limit"] == "60"
        openai = [await server.ask("POST", "/v1/chat/completions", chat) for _ in range(70)]
        assert not [answer for answer in openai if answer.status == 429]
        assert "x-ratelimit-limit" not in openai[0].headers
    async with running(tmp_path / "chosen", **limits | {"rate_limit_per_minute": 1}) as server:
        openai = [await server.ask("POST", "/v1/chat/completions", chat) for _ in range(2)]
        assert openai[1].status == 429
        assert (await server.ask("POST", "/chat", chat)).status == 429


@pytest.mark.parametrize(
    ("path", "up"), [("/schema", "./"), ("/schema/", "../"), ("/schema/swagger", "../")]
)
async def test_the_page_of_the_schema_has_no_link_that_begins_at_the_root(tmp_path, path, up):
    async with running(tmp_path) as server:
        page = (await server.ask("GET", path)).body.decode()
    links = re.findall(r"""(?:href|src)=['"]([^'"]+)""", page)
    assert f"{up}schema/files/swagger-ui-bundle.js" in links
    assert all(link.startswith(f"{up}schema/files/") for link in links)
    assert f'"servers":[{{"url":"{up}"}}]' in page
    assert f'"tokenUrl":"{up}login"' in page
