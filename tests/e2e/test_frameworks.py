"""Frameworks and programs that call models for somebody, unmodified, with a real server.

They are large: `ALL_CLIENTS=1` installs them, each once.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anthropic
import httpx
import numpy as np
import openai
import pytest

from app.manifest import folder_name
from tests.e2e.agent_app import LONG
from tests.e2e.clients import PROGRAMS, python_environment, run
from tests.e2e.server import DEFAULT_MODEL, ROOT, Server, free_port, running_server, wait_for
from tests.fakes import BYTES, byte_ids
from tests.tiny_encoder import table, write_tiny_encoder
from tests.tiny_model import write_tiny_model

FIRST = "The capital of Japan is Tokyo."
SECOND = "The capital of France is Paris."
"""Its answer is right only if the first turn came along: it is asked `And of France?`."""
CITIES = ("Tokyo", "Kyoto")
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or LiteLLM asks the network
    "HF_HUB_OFFLINE": "1",
}
VECTORS = "tiny/vectors"
TEXTS = ("The sky is blue.", "Grass is green.")
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": list(CITIES)}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
PROXY_KEY = "sk-local-4f2a9c71d0b8e653"
"""The proxy starts with no key that is easy to guess."""
LANGCHAIN = ("langchain-openai==1.7.4", "langchain-anthropic==1.7.10", "langchain-ollama==1.1.0")
LLAMA_INDEX = ("llama-index-llms-openai-like==0.8.1", "llama-index-embeddings-openai-like==0.4.0")


@pytest.fixture(scope="module")
def encoder_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Has an encoder with a token a byte, whose vectors are known."""
    folder = tmp_path_factory.mktemp("encoder")
    write_tiny_encoder(folder / "models", VECTORS)
    write_tiny_model(folder / "models", "tiny/text", vocab_size=258, tokenizer=BYTES)
    with running_server(folder, models_dir=folder / "models", model="tiny/text") as server:
        yield server


def printed(folder: Path, program: str, *arguments: object) -> Any:
    """What a program prints as its last line, read."""
    said = run(
        folder / "python", PROGRAMS / program, *arguments, environment=OFFLINE, timeout_s=400
    )
    return json.loads(said.splitlines()[-1])


def talked(found: dict[str, Any]) -> None:
    """Hold that a conversation went as it should, with a system prompt, pieces and usage."""
    assert (found["first"], found["second"]) == (FIRST, SECOND)
    assert found["told"], "with a system prompt too it answers"
    assert found["pieces"] > 3, "it must come in pieces"
    assert found["usage"]
    assert found["city"]["name"] in CITIES
    if "call" in found:
        assert found["call"][0] == "get_weather"
        assert found["call"][1]["city"] in CITIES
        assert found["after"], "the result was read"


def test_langchain_on_anthropic_and_ollama(server: Server):
    python = python_environment("langchain_all", *LANGCHAIN, heavy=True)
    found = printed(python, "langchain_others_chat.py", server.url, DEFAULT_MODEL)
    talked(found["anthropic"])
    talked(found["ollama"])
    assert "call" in found["anthropic"]
    for usage in (found["anthropic"]["streamed_usage"], found["ollama"]["streamed_usage"]):
        assert (usage["input_tokens"], usage["output_tokens"]) == (59, 8)


def test_langchain_embeddings(encoder_server: Server):
    python = python_environment("langchain_all", *LANGCHAIN, heavy=True)
    found = printed(python, "langchain_embeddings.py", encoder_server.url, VECTORS)
    wanted = [table()[byte_ids(text)].mean(0) for text in TEXTS]
    np.testing.assert_allclose(found["texts"], wanted, atol=1e-6)
    np.testing.assert_allclose(found["ollama"], wanted, atol=1e-6)
    np.testing.assert_allclose(found["tokens"], wanted, atol=1e-6)
    np.testing.assert_allclose(found["query"], wanted[0], atol=1e-6)


def test_llama_index(server: Server):
    python = python_environment("llama_index", *LLAMA_INDEX, heavy=True)
    found = printed(python, "llama_index_chat.py", server.url, DEFAULT_MODEL)
    talked(found)
    assert found["completed"].startswith(" Tokyo")


def test_llama_index_embeddings(encoder_server: Server):
    python = python_environment("llama_index", *LLAMA_INDEX, heavy=True)
    found = printed(python, "llama_index_embeddings.py", encoder_server.url, VECTORS)
    wanted = [table()[byte_ids(text)].mean(0) for text in TEXTS]
    np.testing.assert_allclose(found["texts"], wanted, atol=1e-6)
    np.testing.assert_allclose(found["query"], wanted[0], atol=1e-6)


def test_haystack(server: Server):
    python = python_environment("haystack", "haystack-ai==3.4.1", heavy=True)
    talked(printed(python, "haystack_chat.py", server.url, DEFAULT_MODEL))


def test_instructor(server: Server):
    packages = ("instructor==1.17.0", "anthropic==2.14.0")
    python = python_environment("instructor", *packages, heavy=True)
    found = printed(python, "instructor_chat.py", server.url, DEFAULT_MODEL)
    assert found.keys() == {"tools", "schema", "responses", "anthropic"}
    for made in found.values():
        assert made["city"]["name"] in CITIES
        assert made["tokens"]
    for way in ("tools", "schema"):
        assert found[way]["streamed"]["name"] in CITIES
        assert found[way]["parts"] > 3, "it must come in pieces"


def test_dspy(server: Server):
    python = python_environment("dspy", "dspy==3.4.1", heavy=True)
    found = printed(python, "dspy_chat.py", server.url, DEFAULT_MODEL)
    assert found["plain"] == FIRST
    assert found["city"] in CITIES
    assert "DSPyProgramOutputs" in found["asked"], "a schema was asked for, not just JSON"
    assert found["usage"] > 100
    assert len(found["streamed"]) > 1, "it must come in pieces"
    assert "".join(found["streamed"]).strip(' "') in CITIES


def test_outlines(server: Server):
    python = python_environment("outlines", "outlines==1.3.3", "openai==3.57.0", heavy=True)
    found = printed(python, "outlines_chat.py", server.url, DEFAULT_MODEL)
    assert found["text"] == found["told"] == "".join(found["streamed"]) == FIRST
    for way in ("openai", "vllm", "schema", "choice", "grammar"):
        assert found[way] in CITIES, way
    assert found["regex"].isalpha()
    assert found["regex"].istitle()
    assert 4 <= len(found["regex"]) <= 9
    assert json.loads("".join(found["pieces"]))["name"] in CITIES
    assert len(found["pieces"]) > 3, "it must come in pieces"


def test_smolagents(server: Server):
    python = python_environment("smolagents", "smolagents[openai]==1.26.0", heavy=True)
    found = printed(python, "smolagents_chat.py", server.url, DEFAULT_MODEL)
    assert found["text"] == found["streamed"] == FIRST
    assert found["pieces"] > 3, "it must come in pieces"
    assert (found["tokens"], found["streamed_tokens"]) == (8, [8])
    [[name, arguments]] = found["calls"]
    assert name == "weather"
    assert json.loads(arguments)["city"] in CITIES


def test_smolagents_reads_a_file_by_a_tool(agent_server: Server, tmp_path: Path):
    python = python_environment("smolagents", "smolagents[openai]==1.26.0", heavy=True)
    note = tmp_path / "note.txt"
    note.write_text("The cat sat on the mat.")
    found = printed(python, "smolagents_chat.py", agent_server.url, LONG, note)
    assert found["state"] == "success"
    assert found["output"].endswith("The cat sat on the mat.")


def aider(server: Server, model: str, folder: Path, message: str, *options: str) -> str:
    python = python_environment("aider", "aider-chat==0.86.2", heavy=True)
    arguments = (
        *("--model", f"openai/{model}", "--openai-api-base", f"{server.url}/v1"),
        *("--no-git", "--yes-always", "--map-tokens", "0", "--no-pretty", "--no-fancy-input"),
        *("--no-check-update", "--analytics-disable", "--no-show-model-warnings"),
        *("--no-show-release-notes", "--no-detect-urls", "--no-suggest-shell-commands"),
    )
    environment = {**OFFLINE, "OPENAI_API_KEY": "none", "HOME": str(folder / "home")}
    command = (python / "aider", *arguments, *options, "--message", message)
    return run(*command, environment=environment, timeout_s=400, folder=folder)


def test_aider(server: Server, tmp_path: Path):
    question = "What is the capital of Japan?"
    for stream in ("--stream", "--no-stream"):
        said = aider(server, DEFAULT_MODEL, tmp_path, question, "--edit-format", "ask", stream)
        assert FIRST in said
        assert "received" in said, "and it counts tokens"


def test_aider_edits_a_file(agent_server: Server, tmp_path: Path):
    message = "Repeat this:\nnote.txt\n```\nThe cat sat on the mat.\n```\nThat is all."
    aider(agent_server, LONG, tmp_path, message, "--edit-format", "whole")
    assert (tmp_path / "note.txt").read_text() == "The cat sat on the mat.\n"


@contextmanager
def litellm_proxy(server: Server, folder: Path) -> Iterator[str]:
    """LiteLLM's proxy in front of a server, reached by two of its APIs; yields its address."""
    python = python_environment("litellm_proxy", "litellm[proxy]==1.108.7", heavy=True)
    behind = {
        "by-openai": ("openai", f"{server.url}/v1"),
        "by-anthropic": ("anthropic", server.url),
    }
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"{kind}/{DEFAULT_MODEL}",
                "api_base": address,
                "api_key": "none",
            },
        }
        for name, (kind, address) in behind.items()
    ]
    config = folder / "config.yaml"
    config.write_text(json.dumps({"model_list": models}))  # JSON is YAML
    port, log = free_port(), folder / "proxy.log"
    command = [python / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, **OFFLINE, "LITELLM_MASTER_KEY": PROXY_KEY, "HOME": str(folder)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def started() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/health/liveliness").is_success
        return False

    try:
        wait_for(started, "the proxy did not start", 300)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def test_litellm_as_a_proxy(server: Server, tmp_path: Path):
    question: Any = {"role": "user", "content": "What is the capital of Japan?"}
    turns = [{"role": "system", "content": "You answer questions about cities."}, question]
    asked: dict[str, Any] = {"temperature": 0, "max_tokens": 60}
    choice = {"type": "function", "function": {"name": "get_weather"}}
    with litellm_proxy(server, tmp_path) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=PROXY_KEY, max_retries=0)
        create = client.chat.completions.create
        for model in ("by-openai", "by-anthropic"):
            whole = create(model=model, messages=turns, **asked)
            assert whole.choices[0].message.content == FIRST
            chunks = list(
                create(
                    model=model,
                    messages=turns,
                    stream=True,
                    stream_options={"include_usage": True},
                    **asked,
                )
            )
            pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
            assert "".join(pieces) == FIRST
            assert len(pieces) > 3, "it must come in pieces"
            assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
            called = create(
                model=model,
                messages=turns,
                tools=[WEATHER],
                tool_choice=choice,
                parallel_tool_calls=False,
                **asked,
            )
            [call] = called.choices[0].message.tool_calls
            assert json.loads(call.function.arguments)["city"] in CITIES
            result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
            after = create(
                model=model,
                messages=[*turns, called.choices[0].message, result],
                tools=[WEATHER],
                **asked,
            )
            assert after.choices[0].message.content
        by_responses = client.responses.create(
            model="by-openai", input=question["content"], temperature=0, max_output_tokens=60
        )
        assert by_responses.output_text == FIRST
        other = anthropic.Anthropic(base_url=url, api_key=PROXY_KEY, max_retries=0)
        greedy: dict[str, Any] = {"max_tokens": 60, "extra_body": {"temperature": 0}}
        for model in ("by-openai", "by-anthropic"):
            message = other.messages.create(model=model, messages=[question], **greedy)
            assert message.content[0].text == FIRST
            with other.messages.stream(model=model, messages=[question], **greedy) as stream:
                assert "".join(stream.text_stream) == FIRST
        with pytest.raises(openai.BadRequestError) as refused:
            create(model="by-openai", messages=[{"role": "user", "content": "word " * 9000}])
        assert "maximum context length" in str(refused.value)


def test_guidellm(server: Server, tmp_path: Path):
    """It generates prompts of known lengths, and reads usage and times of streams."""
    python = python_environment("guidellm", "guidellm==0.8.1", heavy=True)
    report = tmp_path / "report.json"
    tokenizer = ROOT / "models" / folder_name(DEFAULT_MODEL)
    run(
        *(python / "guidellm", "run", "--disable-console"),
        *("--backend", f"kind=openai_http,target={server.url},model={DEFAULT_MODEL}"),
        *("--profile", "kind=concurrent,streams=2", "--constraint", "kind=max_requests,count=4"),
        *("--tokenizer", f"kind=hf_auto,model={tokenizer}"),
        *("--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=8"),
        *("--output", f"kind=json,path={report}"),
        environment={**OFFLINE, "HOME": str(tmp_path)},
        timeout_s=550,
        folder=tmp_path,
    )
    [benchmark] = json.loads(report.read_text())["benchmarks"]
    requests = benchmark["requests"]
    assert (len(requests["successful"]), requests["errored"]) == (4, [])
    assert {made["output_tokens"] for made in requests["successful"]} == {8}
