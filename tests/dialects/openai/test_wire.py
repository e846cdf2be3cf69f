"""Models, tokens, errors and headers."""

import json
from importlib.metadata import version

import pytest

from app import errors
from app.dialects.openai.wire import refuse
from tests.asgi_client import ask
from tests.dialects.openai.scripted import (
    CHAT,
    NEEDED,
    RESPONSES,
    ScriptedService,
    app_for,
    post,
)
from tests.fakes import MODEL_ID

MODEL = {
    "id": MODEL_ID,
    "object": "model",
    "created": 1_767_225_600,
    "owned_by": "test",
    "root": MODEL_ID,
    "parent": None,
    "max_model_len": 40,
}


async def test_models_are_listed_and_shown():
    app = app_for(ScriptedService())
    answer = await ask(app, "GET", "/v1/models")
    other = {**MODEL, "id": "test/other", "root": "test/other", "max_model_len": 4096}
    assert (answer.status, answer.json) == (200, {"object": "list", "data": [MODEL, other]})
    assert (await ask(app, "GET", f"/v1/models/{MODEL_ID}")).json == MODEL
    unknown = await ask(app, "GET", "/v1/models/no/such")
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")


async def test_embeddings_are_refused_with_the_reason():
    answer = await ask(app_for(ScriptedService()), "POST", "/v1/embeddings", {"input": "x"})
    assert answer.status == 404
    assert "no model that makes embeddings" in answer.json["error"]["message"]


async def test_routers_are_told_what_they_ask():
    application = app_for(ScriptedService())
    told = (await ask(application, "GET", "/version")).json
    assert told == {"version": version("llmhost")}
    assert (await ask(application, "GET", "/load")).json == {"server_load": 0}
    for method in ("GET", "POST"):
        answer = await ask(application, method, "/ping")
        assert (answer.status, answer.body) == (200, b"")


async def test_the_input_of_a_response_is_counted():
    service = ScriptedService()
    tools = [{"type": "function", "name": "f"}, {"type": "web_search"}]
    answer = await post(
        service, "/v1/responses/input_tokens", input="Hi", instructions="Be brief.", tools=tools
    )
    assert answer.json == {"object": "response.input_tokens", "input_tokens": 3}
    assert answer.headers["x-llmhost-ignored"] == "tools[1].type"
    [(messages, model_id, special)] = service.tokenized
    assert [message.text for message in messages] == ["Be brief.", "Hi"]
    assert (model_id, special) == (None, False)
    wrong = await post(service, "/v1/responses/input_tokens", input=[])
    assert (wrong.status, wrong.json["error"]["param"]) == (400, "input")


@pytest.mark.parametrize(
    ("error", "status", "kind", "param", "code"),
    [
        (
            errors.InvalidParameter("n", 0, ">= 1"),
            400,
            "invalid_request_error",
            "n",
            "invalid_value",
        ),
        (errors.NotAuthenticated("no"), 401, "invalid_request_error", None, "invalid_api_key"),
        (errors.Forbidden("no"), 403, "permission_error", None, "forbidden"),
        (errors.Overloaded(9, 9, 7), 429, "requests", None, "overloaded"),
        (errors.RateLimited("no", 7), 429, "requests", None, "rate_limit_exceeded"),
        (errors.ShuttingDown(7), 503, "server_error", None, "shutting_down"),
        (errors.ModelBroken("no"), 500, "server_error", None, "model_broken"),
    ],
)
def test_each_error_has_its_status_type_and_code(error, status, kind, param, code):
    answer = refuse(error)
    told = answer.content.error
    assert answer.status_code == status
    assert (told.message, told.type, told.param, told.code) == (error.message, kind, param, code)
    later = {"Retry-After": "7", "retry-after-ms": "7000"} if status in (429, 503) else {}
    assert answer.headers == ({"WWW-Authenticate": "Bearer"} if status == 401 else later)


async def test_the_name_of_a_field_comes_back_shortened():
    answer = await post(ScriptedService(), CHAT, **{"x" * 5000: 1})
    assert answer.status == 400
    assert len(answer.body) < 500


@pytest.mark.parametrize("path", [*NEEDED, "/nowhere"])
@pytest.mark.parametrize(
    ("given", "echoed"),
    [("abc-123", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("é", False)],
)
async def test_a_request_id_is_echoed_or_made(path, given, echoed):
    path = path if path in NEEDED else f"/v1{path}"
    answer = await ask(
        app_for(ScriptedService()), "POST", path, NEEDED.get(path), headers={"x-request-id": given}
    )
    request_id = answer.headers["x-request-id"]
    assert (request_id == given) is echoed
    assert echoed or (request_id.startswith("req_") and len(request_id) == 36)


@pytest.mark.parametrize("stream", [True, False])
async def test_the_time_until_the_answer_is_told(stream):
    answer = await post(ScriptedService(), RESPONSES, stream=stream)
    assert 0 <= int(answer.headers["openai-processing-ms"]) < 60_000


def test_the_openapi_document_has_every_endpoint_with_its_body_and_errors():
    document = json.loads(json.dumps(app_for(ScriptedService()).openapi_schema.to_schema()))
    for path, needed in NEEDED.items():
        operation = document["paths"][path]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert sorted(schema["required"]) == sorted(needed.keys() - {"model"})
        temperature, absent = schema["properties"]["temperature"]["anyOf"]
        assert (temperature["maximum"], absent) == (2, {"type": "null"})
        assert schema["additionalProperties"] is False
        statuses = {"200", "400", "401", "404", "413", "429", "500", "503"}
        assert set(operation["responses"]) == statuses
        assert "text/event-stream" in operation["responses"]["200"]["content"]
    own = {
        path
        for path, operations in document["paths"].items()
        if any(operation.get("tags") == ["OpenAI"] for operation in operations.values())
    }
    assert own == {
        *NEEDED,
        "/v1/responses/input_tokens",
        *("/v1/files", "/v1/files/{file_id}", "/v1/files/{file_id}/content"),
        *("/v1/batches", "/v1/batches/{batch_id}", "/v1/batches/{batch_id}/cancel"),
        "/v1/responses/{response_id}",
        *(f"/v1/responses/{{response_id}}/{what}" for what in ("cancel", "input_items")),
        *("/version", "/load", "/ping"),
        "/v1/models",
        "/v1/models/{model_id}",
        *("/v1/embeddings", "/embeddings", "/v1/rerank", "/rerank"),
        *("/tokenize", "/detokenize", "/tokenizer_info", "/apply-template"),
    }
