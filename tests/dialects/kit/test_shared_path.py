import msgspec
import pytest
from litestar import Response

from app.dialects.kit.application import assemble
from app.dialects.kit.dialect import Claim, Dialect
from app.dialects.kit.refusals import STATUSES, detail, refuse_with_detail
from app.errors import EngineFailure, Error
from tests.asgi_client import ask
from tests.fakes import FakeService
from tests.hosts import host_over

JSON = {"content-type": "application/json"}


class PromptBody(msgspec.Struct):
    prompt: str


class QueryBody(msgspec.Struct):
    query: str


def claiming(name: str, key: str, body: type[msgspec.Struct], *paths: str) -> Dialect:
    async def handler(request, body):
        if body.get("fail"):
            raise EngineFailure(f"{name} failed")
        return Response({name: body, "path": request.url.path})

    def refuse(error: Error) -> Response:
        return Response({name: error.message}, status_code=418)

    claim = Claim(handler=handler, body=body, responses={})
    return Dialect(paths=paths, refuse=refuse, envelope=detail, claims={key: claim})


OTHERWISE = Dialect(paths=("/",), refuse=refuse_with_detail(STATUSES), envelope=detail)
app = assemble(
    host_over(FakeService()),
    [
        claiming("llm_host", "query", QueryBody),
        claiming("locallab", "prompt", PromptBody),
        OTHERWISE,
    ],
)


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        ({"query": "Hi"}, "llm_host"),
        ({"prompt": "Hi"}, "locallab"),
        ({"prompt": "", "other": 1}, "locallab"),
        ({"prompt": "Hi", "query": None}, "locallab"),
    ],
)
async def test_the_bodys_key_chooses_the_dialect(body, dialect):
    answer = await ask(app, "POST", "/generate", body)
    assert (answer.status, answer.json) == (200, {dialect: body, "path": "/generate"})


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        ({"prompt": "Hi", "query": "Hi"}, ["prompt", "query"]),
        ({}, []),
        ({"text": "Hi"}, ["text"]),
        ({"prompt": None}, ["prompt"]),
    ],
)
async def test_both_or_neither_is_refused_naming_both(body, keys):
    answer = await ask(app, "POST", "/generate", body)
    assert answer.status == 400
    assert answer.json["detail"] == f"body has {keys}, expected exactly one of query and prompt"


@pytest.mark.parametrize("raw", [b"", b"{", b"[]"])
async def test_a_body_that_is_no_object_is_refused(raw):
    answer = await ask(app, "POST", "/generate", raw=raw, headers=JSON)
    assert answer.status == 400
    assert "expected a JSON object" in answer.json["detail"]


async def test_an_error_is_answered_by_the_dialect_that_was_chosen():
    answer = await ask(app, "POST", "/generate", {"query": "Hi", "fail": True})
    assert (answer.status, answer.json) == (418, {"llm_host": "llm_host failed"})


def test_the_openapi_document_shows_both_bodies():
    operation = app.openapi_schema.to_schema()["paths"]["/generate"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert [body["required"] for body in schema["oneOf"]] == [["query"], ["prompt"]]
