"""Adapters over HTTP: chosen by the model's name, on every dialect, by a real server process."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.server import Server, running_server
from tests.export.conftest import AdaptedModel

BASE = "local/base"
NAMES = (BASE, f"{BASE}:pirate", f"{BASE}:poet")
PROMPT = "It was a bright cold day in April"
TURNS = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def server(adapted: AdaptedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    settings: dict[str, Any] = {"models_dir": adapted.models_dir, "model": BASE, "slots": 4}
    with running_server(folder, **settings) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def openai(name: str) -> tuple[str, dict[str, Any]]:
    asked = {"model": name, "messages": TURNS, "max_tokens": 16, "temperature": 0}
    return "/v1/chat/completions", asked


def anthropic(name: str) -> tuple[str, dict[str, Any]]:
    return "/v1/messages", {"model": name, "messages": TURNS, "max_tokens": 16, "temperature": 0}


def ollama(name: str) -> tuple[str, dict[str, Any]]:
    options = {"num_predict": 16, "temperature": 0}
    return "/api/chat", {"model": name, "messages": TURNS, "stream": False, "options": options}


def locallab(name: str) -> tuple[str, dict[str, Any]]:
    sampling = {"temperature": 0, "repetition_penalty": 1}  # its document has another default
    return "/chat", {"messages": TURNS, "model_id": name, "max_tokens": 16, **sampling}


DIALECTS = {"openai": openai, "anthropic": anthropic, "ollama": ollama, "locallab": locallab}


def said(answer: httpx.Response) -> tuple[str, str]:
    """The model that an answer names, and its text."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    name = body.get("model") or body["model_id"]
    if "choices" in body:
        return name, body["choices"][0]["message"]["content"]
    return name, body["message"]["content"] if "message" in body else body["content"][0]["text"]


@pytest.fixture(scope="module")
def texts(server: Server) -> dict[str, str]:
    """What each name says when it is asked alone."""
    with server.client() as client:
        found = {}
        for name in NAMES:
            path, body = openai(name)
            found[name] = said(client.post(path, json=body))[1]
    assert len(set(found.values())) == 3, "adapters that change no text prove nothing"
    return found


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_each_name_says_its_own_beside_the_others(
    dialect: str, server: Server, texts: dict[str, str]
) -> None:
    async with server.async_client() as client:
        rows = [*NAMES, NAMES[1]]
        asked = [DIALECTS[dialect](name) for name in rows]
        answers = await asyncio.gather(*(client.post(path, json=body) for path, body in asked))
    assert [said(answer) for answer in answers] == [(name, texts[name]) for name in rows]


def test_all_lists_name_the_adapters(client: httpx.Client) -> None:
    listed = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    assert list(listed) == list(NAMES)
    pirate = listed[NAMES[1]]
    assert (pirate["root"], pirate["parent"]) == (BASE, BASE)
    assert listed[BASE]["parent"] is None
    assert client.get(f"/v1/models/{NAMES[2]}").json()["id"] == NAMES[2]
    tags = client.get("/api/tags").json()["models"]
    assert [tag["name"] for tag in tags] == [f"{BASE}:latest", *NAMES[1:]]
    assert [tag["details"]["parent_model"] for tag in tags] == ["", BASE, BASE]
    available = client.get("/models/available").json()["models"]
    assert [model["id"] for model in available] == list(NAMES)
    claude = client.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json()["data"]
    assert [model["id"] for model in claude] == list(NAMES)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("base", BASE),
        ("base:latest", BASE),
        ("local/base:none", BASE),
        ("Base:Pirate", NAMES[1]),
        ("base:pirate:latest", NAMES[1]),
        ("local/base:poet", NAMES[2]),
    ],
)
def test_ollamas_tags_and_adapters_are_told_apart(
    name: str, meant: str, client: httpx.Client, texts: dict[str, str]
) -> None:
    path, body = ollama(name)
    assert said(client.post(path, json=body)) == (name, texts[meant])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_adapter_that_is_not_there_is_an_unknown_model(
    dialect: str, client: httpx.Client
) -> None:
    path, body = DIALECTS[dialect](f"{BASE}:parrot")
    answer = client.post(path, json=body)
    assert answer.status_code == 404
    assert "pirate" in answer.text
    assert "poet" in answer.text


def test_an_adapter_is_not_deleted_without_its_model(client: httpx.Client) -> None:
    answer = client.request("DELETE", "/api/delete", json={"model": NAMES[1]})
    assert answer.status_code == 400
    assert "an adapter comes and goes with its own" in answer.text
    assert client.get(f"/v1/models/{BASE}").status_code == 200


def test_an_adapter_is_loaded_and_leaves_with_its_model(client: httpx.Client) -> None:
    unloaded = client.post("/models/unload", json={"model_id": NAMES[2]})
    assert unloaded.status_code == 200, unloaded.text
    assert client.get("/api/ps").json()["models"] == []
    path, body = openai(NAMES[1])
    assert said(client.post(path, json=body))[0] == NAMES[1]
    assert [model["name"] for model in client.get("/api/ps").json()["models"]] == [f"{BASE}:latest"]


def test_what_was_loaded_last_answers_those_who_name_none(
    client: httpx.Client, texts: dict[str, str]
) -> None:
    """LLM Host's API has no other way to an adapter."""
    path, body = locallab(BASE)
    del body["model_id"]
    for name in (NAMES[1], BASE):
        loaded = client.post("/models/load", json={"model_id": name})
        assert loaded.status_code == 200, loaded.text
        assert loaded.json()["model_id"] == name
        assert said(client.post(path, json=body)) == (name, texts[name])
        assert client.get("/health").json()["model"] == name


def test_a_server_starts_with_an_adapter(
    adapted: AdaptedModel, tmp_path: Path, texts: dict[str, str]
) -> None:
    settings: dict[str, Any] = {"models_dir": adapted.models_dir, "model": NAMES[2], "slots": 1}
    path, body = openai(BASE)
    del body["model"]
    with running_server(tmp_path, **settings) as server, server.client() as client:
        assert said(client.post(path, json=body)) == (NAMES[2], texts[NAMES[2]])


def test_an_adapter_makes_no_embeddings_and_says_so(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", json={"model": NAMES[1], "input": "Hi"})
    assert answer.status_code == 400
    assert "generates text and makes no embeddings" in answer.text


def test_a_model_is_not_fetched_over_its_adapters(client: httpx.Client) -> None:
    answer = client.post("/api/pull", json={"model": BASE})
    assert answer.status_code == 400
    assert "local/base has pirate, poet: delete it first" in answer.text


def test_pages_of_anthropics_list_follow_its_order(client: httpx.Client) -> None:
    headers = {"anthropic-version": "2023-06-01"}
    for number, name in enumerate(NAMES):
        page = client.get("/v1/models", headers=headers, params={"before_id": name}).json()
        assert [model["id"] for model in page["data"]] == list(NAMES[:number])
