"""LocalLab's document against a real server: every curl line and its bash loop, in a real shell.

Nothing of their text is changed. BASE_URL is exported, as the document says; `curl` is a shell
function that also prints the status. The context is short, so that 8,192 tokens end early.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.documents import curl_lines, document, run_shell
from tests.e2e.scripted_app import AS_STREAMED
from tests.e2e.server import DEFAULT_MODEL, Server, running_server

WITH_STATUS = """curl() { command curl -sS -w '\\n%{http_code}' "$@"; }"""
CONTEXT = 96


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("small"), context_length=CONTEXT) as server:
        yield server


def run(server: Server, command: str, prelude: str = "") -> str:
    return run_shell(f"export BASE_URL={server.url}\n{prelude}\n{command}")


def check_usage(body: dict[str, Any]) -> None:
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens"] > 0


def check_answer(path: str, status: int, body: dict[str, Any]) -> None:
    """The documented body of each path."""
    if path == "/models/load":  # microsoft/phi-2, which is not on this disk
        assert status == 404
        assert body == {"detail": "model 'microsoft/phi-2' is not on this server"}
        return
    assert status == 200, body
    match path:
        case "/generate":
            assert body["response"]
            check_usage(body)
        case "/chat":
            [choice] = body["choices"]
            assert choice["message"]["role"] == "assistant"
            assert choice["message"]["content"]
            assert choice["finish_reason"] in ("stop", "length")
            check_usage(body)
        case "/generate/batch":
            assert len(body["responses"]) == 3
            assert all(body["responses"])
            check_usage(body)
        case "/models/current":
            assert (body["model_id"], body["is_loaded"]) == (DEFAULT_MODEL, True)
            assert body["context_length"] == CONTEXT
        case "/models/available":
            assert body["current_model"] == DEFAULT_MODEL
            assert DEFAULT_MODEL in [model["id"] for model in body["models"]]
        case "/models/unload":
            assert body["status"] == "Model unloaded successfully"
            assert body["model_id"] == DEFAULT_MODEL
        case "/system/info":
            assert body["active_model"] is None, "it has just been unloaded"
            assert 0 < body["memory_usage"] <= 100
            assert body["request_count"] > 0
        case "/health":
            assert body["status"] == "healthy"
        case _:
            raise AssertionError(f"the document shows {path}, nothing checks it")


def test_every_curl_line_answers_as_documented(small: Server):
    text = document("locallab-api.txt")
    commands = [command for command in curl_lines(text) if "| while" not in command]
    assert len(commands) == 14
    assert len(commands) == text.count("\ncurl ") - 1, "and the loop, below"
    for command in commands:
        printed, _, status = run(small, command, WITH_STATUS).rpartition("\n")
        path = command.partition("${BASE_URL}")[2].partition('"')[0]
        if '"stream": true' in command:
            assert status == "200"
            assert printed.startswith("data: ")
            assert "data: [DONE]\n" in printed
            assert "[ERROR]" not in printed
        else:
            check_answer(path, int(status), json.loads(printed))


def test_8192_tokens_end_with_length_where_the_context_is_short(small: Server):
    body = {"prompt": "Count from 1 to 1000: 1, 2, 3,", "max_length": 8192, "raw": True}
    greedy = {"temperature": 0, "repetition_penalty": 1.0, "model_id": DEFAULT_MODEL}
    answer = httpx.post(f"{small.url}/generate", json={**body, **greedy}, timeout=60).json()
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == CONTEXT


def test_the_streaming_loop_prints_the_text(scripted: Server):
    text = document("locallab-api.txt")
    start = text.index("# Example of processing streaming responses with bash")
    loop = text[start : text.index("  done\n", start) + len("  done\n")]
    assert loop.count("curl ") == 1
    assert run(scripted, loop, 'curl() { command curl -sS "$@"; }') == AS_STREAMED
