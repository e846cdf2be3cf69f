"""OpenAI's, Jina's and Ollama's endpoints for vectors and scores, on tiny encoders."""

import base64
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from litestar import Litestar

from app.catalog.catalog import Catalog
from app.embedding.service import EmbeddingService
from app.generation.service import GenerationService
from app.metrics import Metrics
from app.settings import Settings
from tests.asgi_client import Answer, ask
from tests.fakes import BYTES, byte_ids
from tests.hosts import app_over, host_over
from tests.tiny_encoder import CONTEXT, VOCAB, table, write_tiny_encoder
from tests.tiny_model import write_tiny_model

VECTORS, JUDGE, TEXT = "tiny/vectors", "tiny/judge", "tiny/text"


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_encoder(folder, VECTORS, dimensions=(4,), prompts={"query": "Q: "})
    write_tiny_encoder(folder, JUDGE, kind="reranking")
    write_tiny_model(folder, TEXT, vocab_size=258, tokenizer=BYTES)
    return folder


@pytest.fixture
async def app(models_dir: Path) -> AsyncIterator[Litestar]:
    catalog = Catalog(Settings(models_dir=models_dir), Metrics())
    host = host_over(GenerationService(catalog), catalog, embedder=EmbeddingService(catalog))
    yield app_over(host)
    await catalog.close()


async def post(app: Litestar, path: str, body: Any, **options: Any) -> Answer:
    return await ask(app, "POST", path, body, **options)


def mean(text: str) -> np.ndarray:
    return table()[byte_ids(text)].mean(0)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
async def test_texts_and_tokens_are_answered_in_their_order(app, path):
    for given in ("sky", ["sky"], byte_ids("sky"), [byte_ids("sky")]):
        answer = await post(app, path, {"model": VECTORS, "input": given})
        assert answer.status == 200, answer.body
        [one] = answer.json["data"]
        np.testing.assert_allclose(one["embedding"], mean("sky"), atol=1e-6)
    texts = ["x" * length for length in range(60, 0, -1)]
    answer = await post(app, path, {"model": VECTORS, "input": texts})
    assert [one["index"] for one in answer.json["data"]] == list(range(60))
    assert answer.json["usage"] == {"prompt_tokens": 1830, "total_tokens": 1830}
    assert (answer.json["object"], answer.json["model"]) == ("list", VECTORS)
    many = {"model": VECTORS, "input": ["a"] * 100}
    assert len((await post(app, path, many)).json["data"]) == 100


async def test_base64_has_the_same_numbers(app):
    body = {"model": VECTORS, "input": "sky", "encoding_format": "base64"}
    answer = await post(app, "/v1/embeddings", body)
    sent = base64.b64decode(answer.json["data"][0]["embedding"])
    np.testing.assert_allclose(np.frombuffer(sent, "<f4"), mean("sky"), atol=1e-6)


async def test_options_reach_the_model(app):
    body = {"model": VECTORS, "input": "sky", "dimensions": 4, "prompt_name": "query"}
    answer = await post(app, "/v1/embeddings", body)
    np.testing.assert_allclose(answer.json["data"][0]["embedding"], mean("Q: sky")[:4], atol=1e-6)


WRONG = [
    ({"input": []}, "input", "length >= 1"),
    ({"input": ""}, "input", "at least one token"),
    ({"input": ["a", ""]}, "input[1]", "at least one token"),
    ({"input": [[1], []]}, "input[1]", "at least one token"),
    ({"input": ["a", 1]}, "input", "texts alone"),
    ({"input": ["a"] * 2049}, "input", "at most 2048"),
    ({"input": ["a", "b" * (CONTEXT + 1)]}, "input[1]", f"at most {CONTEXT} tokens"),
    ({"input": [VOCAB]}, "input", f"below {VOCAB}"),
    ({"input": "a", "dimensions": 5}, "dimensions", "one of 4, 8"),
    ({"input": "a", "dimensions": 0}, "dimensions", ">= 1"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format", "'base64' or 'float'"),
    ({"input": "a", "prompt_name": "x"}, "prompt_name", "query"),
    ({}, "input", "missing"),
    ({"input": "a", "model": TEXT}, "model", "generates text and makes no embeddings"),
    ({"input": "a", "model": JUDGE}, "model", "judges documents by a query"),
]


@pytest.mark.parametrize(("body", "field", "said"), WRONG)
async def test_what_is_wrong_is_told_by_field(app, body, field, said):
    answer = await post(app, "/v1/embeddings", {"model": VECTORS, **body})
    assert answer.status == 400
    assert answer.json["error"]["param"] == field
    assert said in answer.json["error"]["message"]


async def test_an_embedding_model_holds_no_conversation(app):
    turn = {"messages": [{"role": "user", "content": "Hi"}]}
    for path in ("/v1/chat/completions", "/api/chat", "/v1/messages"):
        answer = await post(app, path, {"model": VECTORS, "max_tokens": 5, **turn})
        assert answer.status == 400, path
        assert "makes embeddings and generates no text" in answer.body.decode(), path


async def test_models_of_all_kinds_are_listed(app):
    answer = await ask(app, "GET", "/v1/models")
    assert {one["id"] for one in answer.json["data"]} == {VECTORS, JUDGE, TEXT}


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
async def test_documents_come_back_the_best_first(app, path):
    documents = ["aaa", {"text": "zzz"}, "mmm"]
    body = {"model": JUDGE, "query": "q", "documents": documents}
    answer = await post(app, path, body)
    assert answer.status == 200, answer.body
    results = answer.json["results"]
    assert [one["index"] for one in results] == [1, 2, 0]
    scores = [one["relevance_score"] for one in results]
    assert scores == sorted(scores, reverse=True)
    assert "document" not in results[0]
    answer = await post(app, path, {**body, "top_n": 1, "return_documents": True})
    [best] = answer.json["results"]
    assert best["document"] == {"text": "zzz"}
    assert answer.json["usage"]["total_tokens"] == 12


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["a", ""]}, "documents[1]"),
        ({"documents": ["a"], "query": ""}, "query"),
        ({"documents": ["a"], "top_n": 0}, "top_n"),
        ({"documents": ["a" * 100]}, "documents[0]"),
        ({"documents": ["a"], "model": VECTORS}, "model"),
    ],
)
async def test_a_wrong_ranking_is_told_by_field(app, body, field):
    answer = await post(app, "/v1/rerank", {"model": JUDGE, "query": "q", **body})
    assert (answer.status, answer.json["error"]["param"]) == (400, field)


async def test_ollama_embeds_texts_and_cuts_what_is_too_long(app):
    for name in (VECTORS, "vectors:latest"):
        answer = await post(app, "/api/embed", {"model": name, "input": ["sky", "sea"]})
        assert answer.status == 200, answer.body
        np.testing.assert_allclose(answer.json["embeddings"], [mean("sky"), mean("sea")], atol=1e-6)
        assert (answer.json["model"], answer.json["prompt_eval_count"]) == (name, 6)
    long = "x" * (CONTEXT + 9)
    answer = await post(app, "/api/embed", {"model": VECTORS, "input": long})
    assert answer.json["prompt_eval_count"] == CONTEXT
    answer = await post(app, "/api/embed", {"model": VECTORS, "input": long, "truncate": False})
    assert answer.status == 400
    assert "at most 64 tokens" in answer.json["error"]
    assert (await post(app, "/api/embed", {"model": VECTORS, "input": []})).json["embeddings"] == []
    answer = await post(app, "/api/embeddings", {"model": VECTORS, "prompt": "sky"})
    np.testing.assert_allclose(answer.json["embedding"], mean("sky"), atol=1e-6)
    answer = await post(app, "/api/embed", {"model": TEXT, "input": "a"})
    assert (answer.status, list(answer.json)) == (400, ["error"])
    shown = await post(app, "/api/show", {"model": VECTORS})
    assert shown.json["capabilities"] == ["embedding"]


async def test_openais_own_client_reads_the_vectors(app):
    openai = pytest.importorskip("openai")
    import httpx

    transport = httpx.ASGITransport(app)
    async with openai.AsyncOpenAI(
        base_url="http://localhost/v1",
        api_key="x",
        http_client=httpx.AsyncClient(transport=transport),
    ) as client:
        made = await client.embeddings.create(model=VECTORS, input=["sky", "sea"])  # base64
        plain = await client.embeddings.create(
            model=VECTORS, input=["sky", "sea"], encoding_format="float"
        )
    for one, other, text in zip(made.data, plain.data, ("sky", "sea"), strict=True):
        np.testing.assert_allclose(one.embedding, mean(text), atol=1e-6)
        np.testing.assert_allclose(array("f", other.embedding), one.embedding, atol=1e-7)
