"""The whole application: endpoints × errors of the tree, and × tokens that must not pass.

tests/auth/test_guards.py tries the tokens where LocalLab is open; here everything is closed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from app import errors
from app.errors import Error
from app.storage.models import Role
from tests.accounts_app import CHAT, HELLO, PASSWORD, running
from tests.auth.test_guards import BAD_KEYS, PROTECTED, headers_of

TURN = {"messages": [{"role": "user", "content": "Hello"}]}
MODEL = {"model": "test/fake"}
LOAD = {"model_id": "nobody/nothing"}


class Row(NamedTuple):
    method: str
    path: str
    dialect: Literal["LocalLab", "LLM Host", "Neptun", "OpenAI", "Anthropic", "Ollama"]
    door: Literal["open", "closable", "admin", "users", "logins"]
    """Who may pass: anybody · users where the server is closed, or its administrators · users ·
    users with an access token, not with an API key."""
    body: object = None


ROWS = [
    Row("POST", "/generate", "LocalLab", "closable", {"prompt": "x"}),
    Row("POST", "/generate", "LLM Host", "users", {"query": "x"}),
    Row("POST", "/chat", "LocalLab", "closable", TURN),
    Row("POST", "/generate/batch", "LocalLab", "closable", {"prompts": ["x"]}),
    Row("POST", "/models/load", "LocalLab", "admin", LOAD),
    Row("POST", "/models/unload", "LocalLab", "admin"),
    Row("GET", "/models/current", "LocalLab", "closable"),
    Row("GET", "/models/available", "LocalLab", "closable"),
    Row("GET", "/system/info", "LocalLab", "closable"),
    Row("GET", "/health", "LocalLab", "open"),
    Row("GET", "/health/live", "LocalLab", "open"),
    Row("GET", "/health/ready", "LocalLab", "open"),
    Row("GET", "/metrics", "LocalLab", "admin"),
    Row("POST", "/register", "LLM Host", "open", {"username": "x", "password": PASSWORD}),
    Row("POST", "/login", "LLM Host", "open", {"username": "x"}),
    Row("POST", "/refresh", "LLM Host", "open", {}),
    Row("POST", "/logout", "LLM Host", "logins"),
    Row("GET", "/me", "LLM Host", "users"),
    Row("POST", "/me/password", "LLM Host", "logins", {"current_password": PASSWORD}),
    Row("POST", "/me/delete", "LLM Host", "logins", {}),
    Row("POST", "/me/keys", "LLM Host", "logins", {"name": "x"}),
    Row("GET", "/me/keys", "LLM Host", "logins"),
    Row("DELETE", "/me/keys/1", "LLM Host", "logins"),
    Row("POST", f"{CHAT}?chat_id=-1", "Neptun", "users", HELLO),
    Row("GET", "/api/chats", "Neptun", "users"),
    Row("GET", "/api/chats/1", "Neptun", "users"),
    Row("PATCH", "/api/chats/1", "Neptun", "users", {"title": "x"}),
    Row("PUT", "/api/chats/1", "Neptun", "users", {"title": "x", "messages": []}),
    Row("DELETE", "/api/chats/1", "Neptun", "users"),
    Row("GET", "/version", "OpenAI", "closable"),
    Row("GET", "/load", "OpenAI", "closable"),
    Row("GET", "/ping", "OpenAI", "open"),
    Row("POST", "/ping", "OpenAI", "open"),
    Row("GET", "/v1/models", "OpenAI", "closable"),
    Row("GET", "/v1/models/test/fake", "OpenAI", "closable"),
    Row("POST", "/v1/chat/completions", "OpenAI", "closable", {"model": "test/fake", **TURN}),
    Row("POST", "/v1/completions", "OpenAI", "closable", {"model": "test/fake", "prompt": "x"}),
    Row("POST", "/v1/responses", "OpenAI", "closable", {"model": "test/fake", "input": "x"}),
    Row(
        "POST",
        "/v1/responses/input_tokens",
        "OpenAI",
        "closable",
        {"model": "test/fake", "input": "x"},
    ),
    Row("GET", "/v1/responses/1", "OpenAI", "closable"),
    Row("DELETE", "/v1/responses/1", "OpenAI", "closable"),
    Row("GET", "/v1/responses/1/input_items", "OpenAI", "closable"),
    Row("POST", "/v1/responses/1/cancel", "OpenAI", "closable"),
    Row("POST", "/v1/files", "OpenAI", "users"),
    Row("GET", "/v1/files", "OpenAI", "users"),
    Row("GET", "/v1/files/1", "OpenAI", "users"),
    Row("DELETE", "/v1/files/1", "OpenAI", "users"),
    Row("GET", "/v1/files/1/content", "OpenAI", "users"),
    Row("POST", "/v1/batches", "OpenAI", "users", {}),
    Row("GET", "/v1/batches", "OpenAI", "users"),
    Row("GET", "/v1/batches/1", "OpenAI", "users"),
    Row("POST", "/v1/batches/1/cancel", "OpenAI", "users"),
    Row("POST", "/v1/embeddings", "OpenAI", "closable"),
    Row("POST", "/embeddings", "OpenAI", "closable"),
    Row("POST", "/v1/rerank", "OpenAI", "closable"),
    Row("POST", "/rerank", "OpenAI", "closable"),
    Row("POST", "/tokenize", "OpenAI", "closable", {"model": "test/fake", "prompt": "x"}),
    Row("POST", "/detokenize", "OpenAI", "closable", {"model": "test/fake", "tokens": [5]}),
    Row("GET", "/tokenizer_info", "OpenAI", "closable"),
    Row("POST", "/apply-template", "OpenAI", "closable", {"model": "test/fake", **TURN}),
    Row("POST", "/v1/messages", "Anthropic", "closable", {**MODEL, **TURN, "max_tokens": 9}),
    Row("POST", "/v1/messages/count_tokens", "Anthropic", "closable", {**MODEL, **TURN}),
    Row("GET", "/anthropic/v1/models", "Anthropic", "closable"),
    Row("GET", "/anthropic/v1/models/test/fake", "Anthropic", "closable"),
    Row("POST", "/api/chat", "Ollama", "closable", {**MODEL, **TURN}),
    Row("POST", "/api/generate", "Ollama", "closable", {**MODEL, "prompt": "x"}),
    Row("POST", "/api/embed", "Ollama", "closable"),
    Row("POST", "/api/embeddings", "Ollama", "closable"),
    Row("GET", "/api/tags", "Ollama", "closable"),
    Row("GET", "/api/ps", "Ollama", "closable"),
    Row("POST", "/api/show", "Ollama", "closable", MODEL),
    Row("POST", "/api/pull", "Ollama", "admin", {"model": ""}),
    Row("POST", "/api/copy", "Ollama", "admin", {"source": "no/such", "destination": "a/b"}),
    Row("DELETE", "/api/delete", "Ollama", "admin", {"model": "no/such"}),
    Row("GET", "/api/version", "Ollama", "open"),
    Row("GET", "/ollama", "Ollama", "open"),
]
TEMPLATES = {
    f"{CHAT}?chat_id=-1": "/api/ai/huggingface/{model_publisher}/{model_name}/chat",
    "/api/chats/1": "/api/chats/{chat_id}",
    "/v1/models/test/fake": "/v1/models/{model_id}",
    "/v1/files/1": "/v1/files/{file_id}",
    "/v1/files/1/content": "/v1/files/{file_id}/content",
    "/v1/batches/1": "/v1/batches/{batch_id}",
    "/v1/batches/1/cancel": "/v1/batches/{batch_id}/cancel",
    "/v1/responses/1": "/v1/responses/{response_id}",
    "/v1/responses/1/input_items": "/v1/responses/{response_id}/input_items",
    "/v1/responses/1/cancel": "/v1/responses/{response_id}/cancel",
    "/anthropic/v1/models/test/fake": "/anthropic/v1/models/{model_id}",
    "/me/keys/1": "/me/keys/{key_id}",
}
USERS = ("users", "logins")
ENVELOPES = {
    "Neptun": ["statusCode", "statusMessage"],
    "OpenAI": ["error"],
    "Anthropic": ["type", "error", "request_id"],
    "Ollama": ["error"],
}
GONE = "Service not available anymore."
BAD_TOKENS = [
    "none",
    "empty",
    "malformed",
    "expired",
    "wrong key",
    "wrong key, right id",
    "alg none",
    "refresh as access",
    "deleted user",
    *BAD_KEYS,
]

# the error: LocalLab's status, LLM Host's status, Neptun's status and words; {}: its message
ANSWERS: dict[Error, tuple[int, int, int, str]] = {
    Error("it broke"): (500, 500, 500, "Internal Server Error"),
    errors.RequestError("it is wrong"): (400, 400, 400, "Bad Request. {}"),
    errors.InvalidParameter("top_k", -1, ">= 0"): (400, 400, 400, "Bad Request. {}"),
    errors.UnknownParameter("top_q"): (400, 400, 400, "Bad Request. {}"),
    errors.Unsupported("audio", {}, "text alone"): (400, 400, 400, "Bad Request. {}"),
    errors.BatchTooLarge(99, 80): (400, 400, 400, "Bad Request. {}"),
    errors.BodyTimeout(9, 10.0): (408, 408, 400, "Bad Request. {}"),
    errors.ContextOverflow(9120, 8192): (413, 413, 400, "Bad Request. {}"),
    errors.UnknownModel("a/b"): (404, 404, 400, "Invalid model name or publisher"),
    errors.NoModelLoaded(): (400, 503, 400, GONE),
    errors.UsernameTaken(): (400, 400, 400, "Bad Request. {}"),
    errors.UnsuitablePassword(3, "8 to 1024"): (400, 400, 400, "Bad Request. {}"),
    errors.NotKept("response", "1"): (400, 400, 400, "Bad Request. {}"),
    errors.UnknownPrevious("1"): (400, 400, 400, "Bad Request. {}"),
    errors.QuotaFull(11, 10, "responses"): (400, 400, 400, "Bad Request. {}"),
    errors.UnknownChat("1"): (400, 404, 404, "Not Found. {}"),
    errors.ChatsFull(1001, 1000, "chats"): (400, 400, 400, "Bad Request. {}"),
    errors.UnknownApiKey("1"): (400, 404, 400, "Bad Request. {}"),
    errors.TooManyApiKeys(100): (400, 400, 400, "Bad Request. {}"),
    errors.AccessError("no"): (401, 401, 401, "Unauthorized"),
    errors.NotAuthenticated("not authenticated"): (401, 401, 401, "Unauthorized"),
    errors.WrongCredentials(): (401, 401, 401, "Unauthorized"),
    errors.Forbidden("you may not"): (403, 403, 403, "Forbidden"),
    errors.TryAgainLater("later", 7): (429, 503, 400, GONE),
    errors.Overloaded(64, 64, 7): (429, 429, 400, GONE),
    errors.RateLimited("too often", 7): (429, 429, 429, "Too Many Requests. {}"),
    errors.StorageAway("the database", 7): (503, 503, 400, GONE),
    errors.ShuttingDown(7): (503, 503, 400, GONE),
    errors.ServerError("our fault"): (500, 500, 500, "Internal Server Error"),
    errors.EngineFailure("a step failed"): (500, 500, 500, "Internal Server Error"),
    errors.ModelBroken("a file is missing"): (500, 500, 400, GONE),
    errors.ModelTooLarge("it needs 9 GB"): (500, 500, 400, GONE),
    errors.ProviderUnavailable("no cuda"): (500, 500, 400, GONE),
}

BAD = "invalid_request_error"
# OpenAI's status, type, field and code
OPENAI: dict[type[Error], tuple[int, str, str | None, str]] = {
    Error: (500, "server_error", None, "error"),
    errors.RequestError: (400, BAD, None, "bad_request"),
    errors.InvalidParameter: (400, BAD, "top_k", "invalid_value"),
    errors.UnknownParameter: (400, BAD, "top_q", "unknown_parameter"),
    errors.Unsupported: (400, BAD, "audio", "unsupported_parameter"),
    errors.BatchTooLarge: (400, BAD, "n", "batch_too_large"),
    errors.BodyTimeout: (408, BAD, None, "body_timeout"),
    errors.ContextOverflow: (400, BAD, None, "context_length_exceeded"),
    errors.UnknownModel: (404, BAD, "model", "model_not_found"),
    errors.NoModelLoaded: (404, BAD, "model", "model_not_found"),
    errors.UsernameTaken: (400, BAD, None, "username_taken"),
    errors.UnsuitablePassword: (400, BAD, None, "unsuitable_password"),
    errors.NotKept: (404, BAD, None, "not_kept"),
    errors.UnknownPrevious: (400, BAD, "previous_response_id", "previous_response_not_found"),
    errors.QuotaFull: (400, BAD, None, "quota_full"),
    errors.UnknownChat: (404, BAD, None, "unknown_chat"),
    errors.ChatsFull: (400, BAD, None, "chats_full"),
    errors.UnknownApiKey: (404, BAD, None, "unknown_api_key"),
    errors.TooManyApiKeys: (400, BAD, None, "too_many_api_keys"),
    errors.AccessError: (401, BAD, None, "invalid_api_key"),
    errors.NotAuthenticated: (401, BAD, None, "invalid_api_key"),
    errors.WrongCredentials: (401, BAD, None, "invalid_api_key"),
    errors.Forbidden: (403, "permission_error", None, "forbidden"),
    errors.TryAgainLater: (503, "server_error", None, "try_again_later"),
    errors.Overloaded: (429, "requests", None, "overloaded"),
    errors.RateLimited: (429, "requests", None, "rate_limit_exceeded"),
    errors.StorageAway: (503, "server_error", None, "storage_unavailable"),
    errors.ShuttingDown: (503, "server_error", None, "shutting_down"),
    errors.ServerError: (500, "server_error", None, "server_error"),
    errors.EngineFailure: (500, "server_error", None, "engine_failure"),
    errors.ModelBroken: (500, "server_error", None, "model_broken"),
    errors.ModelTooLarge: (500, "server_error", None, "model_too_large"),
    errors.ProviderUnavailable: (500, "server_error", None, "provider_unavailable"),
}
# Anthropic's status and type, by the nearest ancestor
ANTHROPIC: dict[type[Error], tuple[int, str]] = {
    Error: (500, "api_error"),
    errors.RequestError: (400, BAD),
    errors.BodyTimeout: (408, BAD),
    errors.UnknownModel: (404, "not_found_error"),
    errors.NoModelLoaded: (404, "not_found_error"),
    errors.AccessError: (401, "authentication_error"),
    errors.Forbidden: (403, "permission_error"),
    errors.TryAgainLater: (529, "overloaded_error"),
    errors.RateLimited: (429, "rate_limit_error"),
}
# Ollama's status, by the nearest ancestor
OLLAMA: dict[type[Error], int] = {
    Error: 500,
    errors.RequestError: 400,
    errors.BodyTimeout: 408,
    errors.UnknownModel: 404,
    errors.NoModelLoaded: 404,
    errors.AccessError: 401,
    errors.Forbidden: 403,
    errors.TryAgainLater: 503,
    errors.RateLimited: 429,
}
TOO_LONG = (
    "This model's maximum context length is 8192 tokens. However, your prompt has 9120 tokens."
)


def tree(kind: type[Error]) -> Iterator[type[Error]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


def test_the_tables_have_every_error():
    kinds = [type(error) for error in ANSWERS]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == {kind for kind in tree(Error) if kind.__module__ == "app.errors"}
    assert set(OPENAI) == set(kinds)


async def test_the_rows_have_every_route(tmp_path: Path):
    async with running(tmp_path) as server:
        routes = {
            (method, route.path_format)
            for route in server.app.routes
            for method in getattr(route, "methods", [])
            # the pages are open, and files: no envelope is theirs; who may ask for what the
            # operator's shows is in tests/dialects/admin
            if method != "OPTIONS"
            and not (route.path + "/").startswith(("/schema/", "/assets/", "/admin/"))
        } - {("GET", "/")}
    rows = {(row.method, TEMPLATES.get(row.path, row.path)) for row in ROWS}
    assert routes == rows, "a route has no row, or a row no route"


def test_the_matrix_of_tokens_has_every_route_that_is_for_users():
    rows = {(row.method, row.path.partition("?")[0]) for row in ROWS if row.door in USERS}
    assert rows == {(method, path.partition("?")[0]) for method, path, _ in PROTECTED}


def answer_of(error: Error, dialect: str) -> tuple[int, object]:
    locallab, llm_host, neptun, words = ANSWERS[error]
    if dialect == "OpenAI":
        status, kind, param, code = OPENAI[type(error)]
        message = TOO_LONG if isinstance(error, errors.ContextOverflow) else error.message
        told = {"message": message, "type": kind, "param": param, "code": code}
        return status, {"error": told}
    if dialect == "Anthropic":
        status, kind = next(ANTHROPIC[one] for one in type(error).__mro__ if one in ANTHROPIC)
        long = isinstance(error, errors.ContextOverflow)
        message = "prompt is too long: 9120 tokens > 8192 maximum" if long else error.message
        return status, {"type": "error", "error": {"type": kind, "message": message}}
    if dialect == "Ollama":
        status = next(OLLAMA[one] for one in type(error).__mro__ if one in OLLAMA)
        return status, {"error": error.message}
    if dialect == "Neptun":
        message = words.format(error.message)
        return neptun, {"statusCode": neptun, "statusMessage": message}
    return locallab if dialect == "LocalLab" else llm_host, {"detail": error.message}


@pytest.mark.parametrize("error", ANSWERS, ids=lambda error: type(error).__name__)
async def test_every_endpoint_answers_every_error_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Error
):
    async def fail(*_: object) -> None:
        raise error

    def without_generate(request) -> None:
        if request.scope["path"] != "/generate":
            raise error

    async with running(tmp_path, options={"before_request": without_generate}) as server:
        # `POST /generate` chooses the dialect first, so there the service fails
        monkeypatch.setattr(server.service, "start", fail)
        (user,) = [await server.auth.accounts.create("ada", PASSWORD)]
        token = (await server.auth.logins.sign_in(user)).access_token
        for row in ROWS:
            answer = await server.ask(row.method, row.path, row.body, token=token)
            told = answer.json
            if row.dialect == "Anthropic":
                assert told.pop("request_id") == answer.headers["x-request-id"], row
            assert (answer.status, told) == answer_of(error, row.dialect), row
            assert answer.headers["content-type"] == "application/json", row
            later = isinstance(error, errors.TryAgainLater)
            assert answer.headers.get("retry-after") == ("7" if later else None), row
            openai, anthropic = row.dialect == "OpenAI", row.dialect == "Anthropic"
            precisely = "7000" if later and (openai or anthropic) else None
            assert answer.headers.get("retry-after-ms") == precisely, row
            assert "x-request-id" in answer.headers, row
            assert ("request-id" in answer.headers) is anthropic, row
            challenge = "Bearer" if answer.status == 401 else None
            assert answer.headers.get("www-authenticate") == challenge, row


@pytest.mark.parametrize("case", BAD_TOKENS)
async def test_a_closed_server_refuses_every_such_token_everywhere(tmp_path: Path, case: str):
    async with running(tmp_path, require_auth=True) as server:
        headers = await headers_of(server, case)
        for row in ROWS:
            answer = await server.ask(row.method, row.path, row.body, headers=headers)
            if row.door == "open":
                assert answer.status != 401 or row.path in ("/login", "/refresh"), row
                continue
            assert answer.status == 401, row
            assert answer.headers["www-authenticate"] == "Bearer", row
            assert list(answer.json) == ENVELOPES.get(row.dialect, ["detail"]), row
        assert server.service.engine.submitted == []


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("closed", [True, False])
async def test_doors_open_for_those_who_may_pass(tmp_path: Path, role: Role, closed: bool):
    async with running(tmp_path, require_auth=closed) as server:
        for row in ROWS:
            user = await server.auth.accounts.create(f"user{ROWS.index(row)}", PASSWORD, role)
            token = (await server.auth.logins.sign_in(user)).access_token
            answer = await server.ask(row.method, row.path, row.body, token=token)
            refused = closed and row.door == "admin" and role is not Role.ADMIN
            if row.path not in ("/login", "/refresh", "/me/delete", "/me/password"):
                assert answer.status != 401, (row, answer.body)
            assert (answer.status == 403) is refused, (row, answer.body)
            nobody = await server.ask(row.method, row.path, row.body)
            if row.door in ("closable", "admin"):
                assert (nobody.status == 401) is closed, (row, nobody.body)


@pytest.mark.parametrize("role", Role)
async def test_on_a_closed_server_a_key_opens_what_its_user_may_but_not_the_account(
    tmp_path: Path, role: Role
):
    async with running(tmp_path, require_auth=True) as server:
        user = await server.auth.accounts.create("ada", PASSWORD, role)
        key, _ = await server.auth.api_keys.create(user.id, "x")
        for row in ROWS:
            answer = await server.ask(row.method, row.path, row.body, token=key)
            refused = row.door == "logins" or (row.door == "admin" and role is not Role.ADMIN)
            assert (answer.status == 403) is refused, (row, answer.body)
            if row.door != "open":
                assert answer.status != 401, (row, answer.body)
