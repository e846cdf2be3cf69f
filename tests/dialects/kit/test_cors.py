"""Pages of other sites: off by default, and their browser's question is answered before guards."""

from pathlib import Path

import pytest

from app.dialects.kit.cors import cors_config
from app.settings import InvalidSetting
from tests.accounts_app import running
from tests.fakes import MODEL_ID

PAGE = "https://chat.example.org"
ALLOWED = "access-control-allow-origin"
ASKING = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}
CHAT = {"model": MODEL_ID, "messages": [{"role": "user", "content": "Hi"}], "stream": False}
PATHS = ["/v1/chat/completions", "/v1/messages", "/api/chat", "/generate", "/chat"]


async def test_no_page_is_allowed_by_default(tmp_path: Path):
    async with running(tmp_path) as server:
        for path in PATHS:
            answer = await server.ask("OPTIONS", path, headers=ASKING)
            assert not [name for name in answer.headers if name.startswith("access-control")]
        answer = await server.ask("POST", "/api/chat", CHAT, headers={"origin": PAGE})
        assert (answer.status, ALLOWED in answer.headers) == (200, False)


@pytest.mark.parametrize("path", PATHS)
async def test_the_question_is_answered_before_the_guards(tmp_path: Path, path: str):
    async with running(tmp_path, require_auth=True, cors_origins=f"http://a:1, {PAGE}") as server:
        answer = await server.ask("OPTIONS", path, headers=ASKING)
        assert answer.status == 204
        assert answer.headers[ALLOWED] == PAGE
        assert "POST" in answer.headers["access-control-allow-methods"]
        told = answer.headers["access-control-allow-headers"].split(",")
        assert {name.strip() for name in told} >= {"authorization", "content-type"}
        assert "access-control-allow-credentials" not in answer.headers


async def test_answers_refusals_and_streams_can_be_read_by_the_page(tmp_path: Path):
    async with running(tmp_path, require_auth=True, cors_origins=PAGE) as server:
        token, sent = await server.token("ada"), {"origin": PAGE}
        for stream in (False, True):
            body = {**CHAT, "stream": stream}
            answer = await server.ask("POST", "/api/chat", body, token=token, headers=sent)
            assert (answer.status, answer.headers[ALLOWED]) == (200, PAGE)
            assert "request-id" in answer.headers["access-control-expose-headers"]
        for path, status in (("/api/chat", 401), ("/nowhere", 404)):
            answer = await server.ask("POST", path, CHAT, headers=sent)
            assert (answer.status, answer.headers[ALLOWED]) == (status, PAGE)
        other = {"origin": "https://chat.example.org.evil.example"}
        answer = await server.ask("POST", "/api/chat", CHAT, token=token, headers=other)
        assert (answer.status, ALLOWED in answer.headers) == (200, False)
        answer = await server.ask("OPTIONS", "/api/chat", headers={**ASKING, **other})
        assert ALLOWED not in answer.headers


async def test_a_page_that_may_chat_may_not_manage_models(tmp_path: Path):
    async with running(tmp_path, cors_origins="*") as server:
        sent = {"origin": PAGE, "sec-fetch-site": "cross-site"}
        answer = await server.ask("POST", "/api/chat", CHAT, headers=sent)
        assert (answer.status, answer.headers[ALLOWED]) == (200, "*")
        for method, path in (("DELETE", "/api/delete"), ("POST", "/models/unload")):
            assert (await server.ask(method, path, {}, headers=sent)).status == 403


@pytest.mark.parametrize(
    "setting",
    ["example.org", "https://*.example.org", "https://a.b/c", "https://a, null", "HTTP://A"],
)
def test_what_is_no_origin_is_refused_at_start(setting: str):
    with pytest.raises(InvalidSetting, match=r"LLMHOST_CORS_ORIGINS: '.+' is no origin"):
        cors_config(setting)
