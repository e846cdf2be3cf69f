"""A dialect that lives in this module alone, served beside the real ones or without a generator.

What a further dialect needs outside its own folder is an import and a name in `asgi.DIALECTS`.
"""

import asyncio
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar import Response, Router, post
from litestar.types import HTTPResponseStartEvent, Scope

from app.asgi import DIALECTS
from app.auth.guards import signed_in, within_rate_limit
from app.contract.conversation import ChatMessage
from app.contract.embedding import (
    Embedder,
    EmbeddingRequest,
    Embeddings,
    Ranking,
    RankingRequest,
)
from app.contract.generation import (
    NOBODY,
    Caller,
    Event,
    Finished,
    GenerationRequest,
    Generator,
    TextDelta,
)
from app.contract.sampling import SamplingParams
from app.dialects.kit.application import assemble
from app.dialects.kit.body import read_object, to_record
from app.dialects.kit.callers import caller_of
from app.dialects.kit.dialect import Dialect
from app.dialects.kit.framing import NDJSON, Framing, json_line
from app.dialects.kit.host import AnyRequest, Host, Provided
from app.dialects.kit.refusals import headers_for, row_of
from app.dialects.kit.streaming import Reply
from app.errors import AccessError, EngineFailure, Error, RequestError, TryAgainLater, UnknownModel
from app.generation.service import GenerationService
from tests.accounts_app import Server
from tests.asgi_client import ask
from tests.databases import current_database
from tests.fakes import MODEL_ID, FakeCatalog, FakeService
from tests.hosts import host_over

STATUSES = {
    RequestError: 422,
    UnknownModel: 404,
    AccessError: 401,
    TryAgainLater: 429,
    Error: 500,
}


class Asked(msgspec.Struct):
    say: str
    stream: bool = False


class Lines(Framing):
    """A line of JSON for each piece, one for the end, one for a failure."""

    def take(self, index: int, event: Event) -> bytes:
        match event:
            case TextDelta():
                return json_line({"piece": event.text, "of": index})
            case Finished():
                return json_line({"tokens": event.usage.completion_tokens})
        return b""

    def finish(self) -> bytes:
        return json_line({"over": True})

    def fail(self, error: Error) -> bytes:
        return json_line({"wrong": error.code})


@post("/echo", status_code=200, guards=[signed_in, within_rate_limit])
async def echo(request: AnyRequest, generator: Provided[Generator]) -> Response[Any]:
    asked = to_record(await read_object(request), Asked)
    wanted = GenerationRequest(
        messages=[ChatMessage.of("user", asked.say)], sampling=SamplingParams(temperature=0)
    )
    reply = Reply(request, await generator.start(wanted, None, await caller_of(request)))
    if asked.stream:
        return await reply.stream(Lines(), NDJSON)
    [whole] = await reply.whole()
    return Response({"said": whole.text, "by": reply.model_id})


@post("/echo/vectors", status_code=200)
async def vectors(request: AnyRequest, embedder: Provided[Embedder]) -> dict[str, Any]:
    body = await read_object(request)
    made = await embedder.embed(EmbeddingRequest(inputs=body["texts"]), body["model"])
    return {"vectors": [list(vector) for vector in made.vectors], "tokens": made.prompt_tokens}


def envelope(status: int, message: str, headers: dict[str, str]) -> Response[Any]:
    return Response({"oh": message}, status_code=status, headers=headers)


def refuse(error: Error) -> Response[Any]:
    status = row_of(STATUSES, error)
    return envelope(status, error.message, headers_for(error, status))


def own_headers(_: Scope, start: HTTPResponseStartEvent) -> list[tuple[bytes, bytes]]:
    return [(b"x-echo", b"%d" % start["status"])]


def dialect(_: Host) -> Dialect:
    return Dialect(
        paths=("/echo",),
        router=Router(path="/", route_handlers=[echo, vectors]),
        refuse=refuse,
        envelope=envelope,
        headers=own_headers,
    )


@asynccontextmanager
async def running(folder: Path, service: FakeService, **settings: Any) -> AsyncIterator[Server]:
    async with current_database("sqlite", folder) as database:
        host = host_over(service, database=database, **settings)
        dialects = [*(package.dialect(host) for package in DIALECTS), dialect(host)]
        yield Server(assemble(host, dialects), host.auth, database, service, dialects)
        await host.auth.close()


async def test_it_answers_whole_and_as_a_stream(tmp_path: Path) -> None:
    async with running(tmp_path, FakeService("Hel", "lo")) as server:
        token = await server.token("ada")
        answer = await server.ask("POST", "/echo", {"say": "Hi"}, token=token)
        assert (answer.status, answer.json) == (200, {"said": "Hello", "by": MODEL_ID})
        assert answer.headers["x-echo"] == "200"
        answer = await server.ask("POST", "/echo", {"say": "Hi", "stream": True}, token=token)
        assert answer.headers["content-type"].startswith(NDJSON)
        lines = [msgspec.json.decode(line) for line in answer.body.splitlines()]
        assert "".join(line.get("piece", "") for line in lines) == "Hello"
        assert lines[-2:] == [{"tokens": 6}, {"over": True}]
        assert "Hi" in server.service.prompts()[0]


async def test_it_refuses_in_its_own_words_before_and_in_a_stream(tmp_path: Path) -> None:
    async with running(tmp_path, FakeService("Hel", EngineFailure("broke"))) as server:
        token = await server.token("ada")
        answer = await server.ask("POST", "/echo", {"say": 1}, token=token)
        assert (answer.status, answer.json) == (422, {"oh": "say is 1, expected string"})
        answer = await server.ask("POST", "/echo", {"say": "Hi"}, token=token)
        assert (answer.status, answer.json) == (500, {"oh": "broke"})
        answer = await server.ask("POST", "/echo", {"say": "Hi", "stream": True}, token=token)
        assert answer.status == 200
        assert answer.body.endswith(json_line({"wrong": "engine_failure"}))


async def test_accounts_and_limits_hold_for_it(tmp_path: Path) -> None:
    async with running(tmp_path, FakeService("x"), rate_limit_per_minute=1) as server:
        answer = await server.ask("POST", "/echo", {"say": "Hi"})
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        token = await server.token("ada")
        answers = [await server.ask("POST", "/echo", {"say": "Hi"}, token=token) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 429]
        assert answers[1].json["oh"].startswith("more than 1 generations per minute")
        assert int(answers[1].headers["retry-after"]) > 0
        assert answers[0].headers["x-ratelimit-limit"] == "1"


@pytest.mark.parametrize(
    ("method", "path", "status", "key"),
    [
        ("GET", "/echo/nowhere", 404, "oh"),
        ("DELETE", "/echo", 405, "oh"),
        ("GET", "/echoes", 404, "detail"),
        ("GET", "/v1/nowhere", 404, "error"),
    ],
)
async def test_what_no_route_answers_is_told_by_who_owns_the_path(
    tmp_path: Path, method: str, path: str, status: int, key: str
) -> None:
    async with running(tmp_path, FakeService("x")) as server:
        answer = await server.ask(method, path)
        assert (answer.status, list(answer.json)) == (status, [key])
        assert ("x-echo" in answer.headers) is (key == "oh")
        assert "x-request-id" in answer.headers


async def test_a_client_that_goes_frees_its_slot(tmp_path: Path) -> None:
    async with running(tmp_path, FakeService("Hel", asyncio.Event())) as server:
        token, gone = await server.token("ada"), asyncio.Event()
        await server.ask(
            "POST",
            "/echo",
            {"say": "Hi", "stream": True},
            token=token,
            gone=gone,
            on_chunk=lambda _: gone.set(),
        )
        assert server.service.engine.in_use == 0


class Lengths(Embedder):
    """An embedder without any model: a text's vector is its number of letters and of words."""

    async def embed(
        self,
        request: EmbeddingRequest,
        model_id: str | None = None,
        caller: Caller = NOBODY,  # noqa: ARG002
    ) -> Embeddings:
        if model_id != "test/lengths":
            raise UnknownModel(model_id or "")
        texts = [text for text in request.inputs if isinstance(text, str)]
        vectors = [array("f", [len(text), len(text.split())]) for text in texts]
        return Embeddings(model_id=model_id, vectors=vectors, prompt_tokens=2 * len(texts))

    async def rank(
        self,
        request: RankingRequest,  # noqa: ARG002
        model_id: str | None = None,
        caller: Caller = NOBODY,  # noqa: ARG002
    ) -> Ranking:
        raise UnknownModel(model_id or "")


async def test_an_embedder_is_served_without_an_engine() -> None:
    catalog = FakeCatalog(None)
    host = host_over(GenerationService(catalog), catalog, embedder=Lengths())
    rest = Dialect(paths=("/",), refuse=refuse, envelope=envelope)
    app = assemble(host, [dialect(host), rest])
    body = {"texts": ["a b", "c"], "model": "test/lengths"}
    answer = await ask(app, "POST", "/echo/vectors", body)
    assert (answer.status, answer.json) == (
        200,
        {"vectors": [[3.0, 2.0], [1.0, 1.0]], "tokens": 4},
    )
    answer = await ask(app, "POST", "/echo/vectors", {**body, "model": "no/such"})
    assert (answer.status, answer.json) == (404, {"oh": "model 'no/such' is not on this server"})
