"""The dialect within the whole application: keys, errors, headers, and the paths of others."""

from pathlib import Path

import pytest
from anthropic.types import ModelInfo
from anthropic.types.shared import ErrorResponse

from app import errors
from app.dialects.anthropic.wire import envelope, refuse
from tests.accounts_app import PASSWORD, running
from tests.asgi_client import ask
from tests.dialects.anthropic.test_messages import unknown_fields
from tests.dialects.openai.scripted import HI, ScriptedModels, ScriptedService
from tests.fakes import MODEL_ID, FakeService
from tests.hosts import app_over, host_over

VERSION = {"anthropic-version": "2023-06-01"}
BODY = {"model": MODEL_ID, "messages": HI, "max_tokens": 5}
OURS = {
    "type": "model",
    "id": MODEL_ID,
    "display_name": "fake",
    "created_at": "2026-01-01T00:00:00Z",
    "lifecycle": "active",
    "deprecated_at": None,
    "retires_at": None,
    "line": None,
    "capabilities": None,
    "max_input_tokens": 40,
    "max_tokens": 40,
}
OTHER = {
    **OURS,
    "id": "test/other",
    "display_name": "other",
    "max_input_tokens": 4096,
    "max_tokens": 4096,
}


async def test_models_are_told_in_the_form_of_who_asks():
    app = app_over(host_over(ScriptedService(), ScriptedModels()))
    answer = await ask(app, "GET", "/v1/models", headers=VERSION)
    page = {"has_more": False, "first_id": MODEL_ID, "last_id": "test/other"}
    assert answer.json == {"data": [OURS, OTHER], **page}
    assert unknown_fields(ModelInfo.model_validate(answer.json["data"][0])) == []
    assert "request-id" in answer.headers
    answer = await ask(app, "GET", f"/v1/models/{MODEL_ID}", headers=VERSION)
    assert answer.json == OURS
    answer = await ask(app, "GET", "/v1/models/no/such", headers=VERSION)
    assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")
    # and OpenAI's clients are not disturbed
    assert (await ask(app, "GET", "/v1/models")).json["object"] == "list"
    assert (await ask(app, "GET", f"/v1/models/{MODEL_ID}")).json["object"] == "model"


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ("limit=1", [MODEL_ID], True),
        (f"limit=1&after_id={MODEL_ID}", ["test/other"], False),
        ("before_id=test/other", [MODEL_ID], False),
        ("after_id=test/other", [], False),
    ],
)
async def test_models_come_in_pages(query: str, ids: list[str], more: bool):
    app = app_over(host_over(ScriptedService(), ScriptedModels()))
    page = (await ask(app, "GET", f"/v1/models?{query}", headers=VERSION)).json
    assert ([model["id"] for model in page["data"]], page["has_more"]) == (ids, more)


async def test_a_key_may_come_in_a_header_of_its_own(tmp_path: Path):
    async with running(tmp_path, require_auth=True) as server:
        user = await server.auth.accounts.create("ada", PASSWORD)
        key, _ = await server.auth.api_keys.create(user.id, "x")
        for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}", "x-api-key": "no"}):
            answer = await server.ask("POST", "/v1/messages", BODY, headers=headers)
            assert answer.status == 200, answer.body
            models = await server.ask("GET", "/v1/models", headers={**headers, **VERSION})
            assert models.status == 200
        for headers in ({}, {"x-api-key": "sk-wrong"}):
            answer = await server.ask("POST", "/v1/messages", BODY, headers=headers)
            assert (answer.status, answer.json["error"]["type"]) == (401, "authentication_error")
        # no other dialect reads it
        answer = await server.ask("GET", "/v1/models", headers={"x-api-key": key})
        assert (answer.status, list(answer.json)) == (401, ["error"])


async def test_limits_and_ids_are_told_as_anthropic_tells_them(tmp_path: Path):
    async with running(tmp_path, FakeService("x"), rate_limit_per_minute=1) as server:
        sent = {"x-request-id": "abc"}
        seen = [await server.ask("POST", "/v1/messages", BODY, headers=sent) for _ in range(2)]
    assert [answer.status for answer in seen] == [200, 429]
    assert seen[1].json["error"]["type"] == "rate_limit_error"
    assert seen[1].json["request_id"] == "abc"
    assert unknown_fields(ErrorResponse.model_validate(seen[1].json)) == []
    for answer in seen:
        assert answer.headers["request-id"] == "abc"
        assert answer.headers["anthropic-ratelimit-requests-limit"] == "1"
        assert answer.headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert answer.headers["anthropic-ratelimit-requests-reset"].endswith("Z")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.InvalidParameter("top_k", -1, ">= 0"), 400, "invalid_request_error"),
        (errors.NotAuthenticated("no"), 401, "authentication_error"),
        (errors.Forbidden("no"), 403, "permission_error"),
        (errors.UnknownModel("a/b"), 404, "not_found_error"),
        (errors.RateLimited("no", 7), 429, "rate_limit_error"),
        (errors.EngineFailure("no"), 500, "api_error"),
        (errors.Overloaded(9, 9, 7), 529, "overloaded_error"),
        (errors.ShuttingDown(7), 529, "overloaded_error"),
    ],
)
def test_each_error_has_its_status_and_type(error: errors.Error, status: int, kind: str):
    answer = refuse(error)
    assert (answer.status_code, answer.content.error.type) == (status, kind)
    later = isinstance(error, errors.TryAgainLater)
    assert answer.headers.get("Retry-After") == ("7" if later else None)
    told = {"type": "error", "error": {"type": kind, "message": error.message}}
    assert unknown_fields(ErrorResponse.model_validate(told)) == []


def test_what_comes_from_no_error_of_ours_has_a_type_too():
    kinds = [envelope(status, "x", {}).content.error.type for status in (400, 404, 405, 413, 500)]
    bad = "invalid_request_error"
    assert kinds == [bad, "not_found_error", bad, "request_too_large", "api_error"]


async def test_a_prompt_that_is_too_long_is_told_in_the_words_that_agents_know():
    message = refuse(errors.ContextOverflow(9120, 8192)).content.error.message
    assert message == "prompt is too long: 9120 tokens > 8192 maximum"


def test_fields_are_named_as_this_dialect_names_them():
    error = errors.InvalidParameter("tools[3].function.parameters.type", "x", "'object'")
    assert (
        refuse(error).content.error.message
        == "tools[3].input_schema.type is 'x', expected 'object'"
    )
