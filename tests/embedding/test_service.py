"""Vectors of texts and tokens, limits, prompts and sizes; on a tiny encoder and its real thread."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.catalog.catalog import Catalog
from app.contract.embedding import EmbeddingRequest, RankingRequest
from app.contract.generation import Caller
from app.embedding.service import EmbeddingService
from app.errors import (
    EngineFailure,
    InvalidParameter,
    NoModelLoaded,
    Overloaded,
    ShuttingDown,
    Unsupported,
)
from app.metrics import Metrics
from app.runtime.ort_encoder import OrtEncoder
from app.settings import Settings
from tests.fakes import BYTES, byte_ids
from tests.tiny_encoder import CONTEXT, VOCAB, WIDTH, table, write_tiny_encoder
from tests.tiny_model import write_tiny_model

VECTORS, JUDGE, TEXT = "tiny/vectors", "tiny/judge", "tiny/text"


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_encoder(folder, VECTORS, prompts={"query": "Q: "}, dimensions=(2, 4))
    write_tiny_encoder(folder, "tiny/one", normalised=True, any_dimensions=True)
    write_tiny_encoder(
        folder, "tiny/prompted", prompts={"query": "Q: ", "doc": "D: "}, default_prompt="doc"
    )
    write_tiny_encoder(folder, JUDGE, kind="reranking")
    write_tiny_model(folder, TEXT, vocab_size=258, tokenizer=BYTES)
    return folder


@asynccontextmanager
async def opened(
    models_dir: Path, metrics: Metrics | None = None, **settings: Any
) -> AsyncIterator[tuple[Catalog, EmbeddingService]]:
    catalog = Catalog(Settings(models_dir=models_dir, drain_timeout_s=0.0, **settings), metrics)
    yield catalog, EmbeddingService(catalog)
    await catalog.close()


def mean(text: str) -> np.ndarray:
    return table()[byte_ids(text)].mean(0)


def asked(*inputs: Any, **options: Any) -> EmbeddingRequest:
    return EmbeddingRequest(inputs=inputs, **options)


async def test_texts_of_all_lengths_get_their_own_vectors_in_their_order(models_dir):
    texts = ["abcdefgh"[: 1 + n % 8] * (1 + n % 7) + str(n) for n in range(200)]
    async with opened(models_dir, encoder_run_tokens=64) as (_, service):
        made = await service.embed(asked(*texts), VECTORS)
    for text, vector in zip(texts, made.vectors, strict=True):
        np.testing.assert_allclose(vector, mean(text), atol=1e-6)
    assert made.prompt_tokens == sum(len(byte_ids(text)) for text in texts)
    assert made.model_id == VECTORS


async def test_tokens_are_taken_as_they_are(models_dir):
    async with opened(models_dir) as (_, service):
        made = await service.embed(asked("hello", byte_ids("hello")), VECTORS)
        assert made.vectors[0] == made.vectors[1]
        with pytest.raises(InvalidParameter, match=rf"input\[1\] is {VOCAB}, .* below {VOCAB}"):
            await service.embed(asked([1], [2, VOCAB]), VECTORS)


async def test_a_text_that_is_too_long_is_refused_by_name_or_cut(models_dir):
    long = "x" * (CONTEXT + 1)
    async with opened(models_dir) as (_, service):
        with pytest.raises(InvalidParameter, match=rf"input\[1\] .* {CONTEXT + 1} tokens.*64"):
            await service.embed(asked("a", long), VECTORS)
        with pytest.raises(InvalidParameter, match="at least"):
            await service.embed(asked("x" * 10_000_000), VECTORS)
        made = await service.embed(asked(long, long[:CONTEXT], truncate=True), VECTORS)
        assert made.vectors[0] == made.vectors[1]
        assert made.prompt_tokens == 2 * CONTEXT


async def test_prompts_are_the_models_own(models_dir):
    async with opened(models_dir) as (_, service):
        made = await service.embed(asked("sky", prompt_name="query"), VECTORS)
        np.testing.assert_allclose(made.vectors[0], mean("Q: sky"), atol=1e-6)
        with pytest.raises(InvalidParameter, match=r"prompt_name is 'passage'.*query"):
            await service.embed(asked("sky", prompt_name="passage"), VECTORS)
        made = await service.embed(asked("sky"), "tiny/prompted")
        np.testing.assert_allclose(made.vectors[0], mean("D: sky"), atol=1e-6)


async def test_dimensions_are_those_that_the_model_was_trained_for(models_dir):
    async with opened(models_dir) as (_, service):
        made = await service.embed(asked("sky", dimensions=4), VECTORS)
        np.testing.assert_allclose(made.vectors[0], mean("sky")[:4], atol=1e-6)
        assert len((await service.embed(asked("sky", dimensions=WIDTH), VECTORS)).vectors[0]) == 8
        with pytest.raises(InvalidParameter, match="dimensions is 3, expected one of 2, 4, 8"):
            await service.embed(asked("sky", dimensions=3), VECTORS)
        made = await service.embed(asked("sky", dimensions=3), "tiny/one")
        assert np.linalg.norm(made.vectors[0]) == pytest.approx(1)
        with pytest.raises(Unsupported, match="not trained for fewer"):
            await service.embed(asked("sky", dimensions=3), "tiny/prompted")


async def test_a_reranker_judges_each_document_by_the_query(models_dir):
    async with opened(models_dir) as (_, service):
        documents = ["zzz", "aaa", "mmm"]
        made = await service.rank(RankingRequest(query="q", documents=documents), JUDGE)
        assert sorted(documents, key=dict(zip(documents, made.scores, strict=True)).get) == (
            sorted(documents)
        )
        assert all(0 <= score <= 1 for score in made.scores)
        long = RankingRequest(query="q", documents=["a", "b" * 100])
        with pytest.raises(InvalidParameter, match=r"documents\[1\].*the query included"):
            await service.rank(long, JUDGE)
        cut = RankingRequest(query="q", documents=["b" * 100, "b"], max_document_tokens=1)
        made = await service.rank(cut, JUDGE)
        assert made.scores[0] == pytest.approx(made.scores[1])
        long = RankingRequest(query="q" * 64, documents=["a"], max_document_tokens=9)
        with pytest.raises(InvalidParameter, match="query"):
            await service.rank(long, JUDGE)


async def test_models_are_asked_for_what_they_do_and_nothing_is_loaded_else(models_dir):
    async with opened(models_dir) as (catalog, service):
        with pytest.raises(Unsupported, match="generates text and makes no embeddings"):
            await service.embed(asked("a"), TEXT)
        with pytest.raises(Unsupported, match="makes embeddings and judges no documents"):
            await service.rank(RankingRequest(query="q", documents=["a"]), VECTORS)
        with pytest.raises(Unsupported, match="makes embeddings and generates no text"):
            await catalog.reserve(VECTORS, 1)
        assert catalog.loaded == []
        assert {facts.model_id: facts.kind for facts in await catalog.available()} == {
            JUDGE: "reranking",
            "tiny/one": "embedding",
            "tiny/prompted": "embedding",
            TEXT: "text",
            VECTORS: "embedding",
        }


async def test_encoders_and_text_models_have_places_of_their_own(models_dir):
    async with opened(models_dir, max_loaded_encoders=1) as (catalog, service):
        await catalog.load(TEXT)
        await service.embed(asked("a"), VECTORS)
        assert catalog.current is not None
        assert catalog.current.model_id == TEXT
        assert {state.model_id for state in catalog.loaded} == {TEXT, VECTORS}
        await service.rank(RankingRequest(query="q", documents=["a"]))
        assert {state.model_id for state in catalog.loaded} == {TEXT, JUDGE}
        assert await catalog.unload() == TEXT
        with pytest.raises(NoModelLoaded):
            await catalog.get(None)


async def test_without_a_name_the_encoder_used_last_answers_or_the_first(models_dir):
    async with opened(models_dir) as (_, service):
        assert (await service.embed(asked("a"))).model_id == "tiny/one"
        await service.embed(asked("a"), VECTORS)
        assert (await service.embed(asked("a"))).model_id == VECTORS


class Held:
    """Stands in front of an encoder and holds its runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import threading

        self.sizes: list[int] = []
        self.go = threading.Semaphore(0)
        run = OrtEncoder.run

        def held(encoder, rows):
            self.sizes.append(len(rows))
            assert self.go.acquire(timeout=30)
            return run(encoder, rows)

        monkeypatch.setattr(OrtEncoder, "run", held)


async def test_a_client_with_many_texts_does_not_keep_others_waiting(models_dir, monkeypatch):
    held = Held(monkeypatch)
    async with opened(models_dir, encoder_run_tokens=8) as (catalog, service):
        await catalog.load(VECTORS)
        many = asked(*["abcdefgh"] * 50)
        greedy = asyncio.create_task(service.embed(many, VECTORS, Caller(client="greedy")))
        while not held.sizes:
            await asyncio.sleep(0.001)
        # nobody's run has ended, so both wait
        assert catalog.loaded[0].waiting == 1
        modest = asyncio.create_task(service.embed(asked("a"), VECTORS, Caller(client="modest")))
        while catalog.loaded[0].waiting < 2:
            await asyncio.sleep(0.001)
        held.go.release(3)
        await modest
        assert not greedy.done()
        greedy.cancel()
        await asyncio.gather(greedy, return_exceptions=True)
        held.go.release(2)
        while catalog.loaded[0].running:
            await asyncio.sleep(0.001)
        assert len(held.sizes) < 10, "what nobody waits for is not run"
        held.go.release(50)


async def test_as_many_requests_wait_as_may_and_no_more(models_dir, monkeypatch):
    held = Held(monkeypatch)
    async with opened(models_dir, max_waiting=1) as (catalog, service):
        first = [asyncio.create_task(service.embed(asked("a"), VECTORS)) for _ in range(2)]
        while not held.sizes:
            await asyncio.sleep(0.001)
        with pytest.raises(Overloaded):
            await service.embed(asked("b"), VECTORS)
        closing = asyncio.create_task(catalog.close())
        held.go.release(9)
        ended = await asyncio.gather(*first, return_exceptions=True)
        assert all(isinstance(one, ShuttingDown) or one.vectors for one in ended)
        await closing
        with pytest.raises(ShuttingDown):
            await service.embed(asked("b"), VECTORS)


async def test_a_run_that_fails_ends_its_requests_alone(models_dir, monkeypatch):
    run = OrtEncoder.run

    def failing(encoder, rows):
        if any(list(row.ids) == byte_ids("bad") for row in rows):
            raise EngineFailure("no memory")
        return run(encoder, rows)

    monkeypatch.setattr(OrtEncoder, "run", failing)
    metrics = Metrics()
    async with opened(models_dir, metrics) as (catalog, service):
        with pytest.raises(EngineFailure, match="no memory"):
            await service.embed(asked("bad"), VECTORS)
        assert (await service.embed(asked("good"), VECTORS)).vectors
        assert catalog.loaded[0].failure is None
        text = metrics.expose("text/plain")[0].decode()
    assert f'llmhost_prompt_tokens_total{{model_name="{VECTORS}"}} 4.0' in text
    for reason, count in (("stop", 1), ("error", 1)):
        series = f'{{finished_reason="{reason}",model_name="{VECTORS}"}} {count}.0'
        assert f"llmhost_request_success_total{series}" in text


async def test_a_query_that_leaves_no_room_is_refused_before_any_document(models_dir):
    async with opened(models_dir) as (_, service):
        request = RankingRequest(query="q" * 100_000, documents=["a"] * 2048)
        async with asyncio.timeout(10):  # tokenized with each document it would be 200 MB
            with pytest.raises(InvalidParameter, match=r"^query "):
                await service.rank(request, JUDGE)


async def test_one_client_leaves_places_to_others(models_dir, monkeypatch):
    held = Held(monkeypatch)
    async with opened(models_dir, max_waiting=3) as (_, service):
        greedy = Caller(client="greedy")
        first = [asyncio.create_task(service.embed(asked("a"), VECTORS, greedy)) for _ in range(4)]
        while not held.sizes:
            await asyncio.sleep(0.001)
        modest = Caller(client="modest")
        with pytest.raises(Overloaded):
            await service.embed(asked("b"), VECTORS, modest)
        held.go.release(99)
        await asyncio.gather(*first)
        held.go = held.go.__class__(0)
        again = [asyncio.create_task(service.embed(asked("a"), VECTORS, greedy)) for _ in range(4)]
        done, _ = await asyncio.wait(again, timeout=0.2)
        assert done, "who was refused may come back: the others get their share and no more"
        assert all(isinstance(task.exception(), Overloaded) for task in done)
        coming = asyncio.create_task(service.embed(asked("b"), VECTORS, modest))
        held.go.release(99)
        assert (await coming).vectors
        await asyncio.gather(*again, return_exceptions=True)
