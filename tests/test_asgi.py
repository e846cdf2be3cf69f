"""The application as it is put together: who may manage models, and what stays open."""

import asyncio
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
