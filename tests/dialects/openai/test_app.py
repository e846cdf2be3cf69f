"""The dialect within the whole application: keys, limits, whose prompts, unknown paths."""

from pathlib import Path
from typing import Any

import pytest

from app.contract.generation import Caller
from app.errors import RequestError
from tests.accounts_app import running
from tests.dialects.openai.scripted import CHAT, COMPLETIONS, NEEDED, RESPONSES
from tests.fakes import MODEL_ID, FakeService

EMBEDDINGS = "/v1/embeddings"


@pytest.mark.parametrize("key", ["", "Bearer EMPTY", "Bearer sk-no-key-required", "Basic x"])
async def test_an_open_server_takes_whatever_key_clients_send(tmp_path: Path, key: str):
    async with running(tmp_path) as server:
        answer = await server.ask("GET", "/v1/models", headers={"authorization": key})
        assert (answer.status, [model["id"] for model in answer.json["data"]]) == (200, [MODEL_ID])


async def test_a_closed_server_takes_access_tokens(tmp_path: Path):
    async with running(tmp_path, require_auth=True) as server:
        answer = await server.ask("GET", "/v1/models", token="sk-no-key-required")
        assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
        token = await server.token("ada")
        assert (await server.ask("GET", "/v1/models", token=token)).status == 200


async def test_limits_are_told_as_openai_tells_them(tmp_path: Path):
    async with running(tmp_path, rate_limit_per_minute=2) as server:
        seen = [await server.ask("POST", EMBEDDINGS) for _ in range(3)]
        assert [answer.status for answer in seen] == [404, 404, 429]
        named = [answer.headers["x-ratelimit-remaining-requests"] for answer in seen]
        assert named == ["1", "0", "0"]
        last = seen[-1].headers
        assert last["x-ratelimit-limit-requests"] == last["x-ratelimit-limit"] == "2"
        assert 0 < int(last["x-ratelimit-reset-requests"].removesuffix("s")) <= 61
        assert int(last["retry-after-ms"]) == 1000 * int(last["retry-after"]) > 0


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        (("GET", "/v1/nowhere"), 404, "there is nothing at /v1/nowhere"),
        (("DELETE", CHAT), 405, f"DELETE is not allowed at {CHAT}"),
        (("GET", "/tokenize"), 405, "GET is not allowed at /tokenize"),
    ],
)
async def test_unknown_paths_and_methods_are_told_in_this_envelope(
    tmp_path: Path,
    asked: tuple[str, str],
    status: int,
    message: str,
):
    async with running(tmp_path) as server:
        answer = await server.ask(*asked)
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    assert (answer.status, answer.json) == (status, {"error": error})
    assert "x-request-id" in answer.headers


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES])
async def test_a_user_shares_cached_prefixes_with_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
):
    callers: list[Caller] = []

    async def record(_requests: list[Any], _model: str, caller: Caller) -> None:
        callers.append(caller)
        raise RequestError("seen")

    async with running(tmp_path) as server:
        monkeypatch.setattr(server.service, "start_batch", record)
        token = await server.token("ada")
        user_id = (await server.ask("GET", "/me", token=token)).json["id"]
        await server.ask("POST", path, NEEDED[path], token=token)
        await server.ask("POST", path, NEEDED[path])
    assert callers == [
        Caller(f"user {user_id}", user_id),
        Caller("address 127.0.0.1"),
    ]


async def test_every_choice_counts_against_the_rate_limit(tmp_path: Path):
    async with running(tmp_path, FakeService("x"), rate_limit_per_minute=5) as server:
        three = {**NEEDED[CHAT], "n": 3}
        first, second = [await server.ask("POST", CHAT, three) for _ in range(2)]
        assert (first.status, first.headers["x-ratelimit-remaining-requests"]) == (200, "2")
        assert second.status == 429
        assert second.json["error"]["message"].startswith("more than 5 generations per minute")
        batch = await server.ask("POST", "/generate/batch", {"prompts": ["a", "b"]})
        assert batch.status == 429


async def test_more_choices_than_a_minute_may_have_take_up_the_whole_minute(tmp_path: Path):
    async with running(tmp_path, FakeService("x"), rate_limit_per_minute=3) as server:
        answer = await server.ask("POST", CHAT, {**NEEDED[CHAT], "n": 8})
        assert (answer.status, answer.headers["x-ratelimit-remaining-requests"]) == (200, "0")
        assert (await server.ask("POST", CHAT, NEEDED[CHAT])).status == 429
