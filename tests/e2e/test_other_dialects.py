"""Anthropic's and Ollama's own clients, unmodified, in short conversations with a real server."""

import json
import os
import shutil
from pathlib import Path

import anthropic
import ollama
import pytest

from tests.e2e.agent_app import LONG, SAID
from tests.e2e.clients import PROGRAMS, node_environment, run
from tests.e2e.server import DEFAULT_MODEL, Server

QUESTION = "What is the capital of Japan?"
FIRST = "The capital of Japan is Tokyo."
SECOND = "The capital of France is Paris."
"""Its answer is right only if the first turn came along: it is asked `And of France?`."""
WEATHER = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Tokyo", "Kyoto"]}},
        "required": ["city"],
        "additionalProperties": False,  # where more keys are allowed the small model finds more
    },
}
AGENT = "@anthropic-ai/claude-code@2.1.332"


def program(name: str, tmp_path: Path, *packages: str) -> Path:
    """A program in a folder from which Node finds these packages."""
    (tmp_path / "node_modules").symlink_to(node_environment(name, *packages) / "node_modules")
    return Path(shutil.copy(PROGRAMS / f"{name}_chat.mjs", tmp_path))


def test_anthropic_for_python(server: Server):
    with anthropic.Anthropic(base_url=server.url, api_key="sk-none", max_retries=0) as client:
        talk_with_anthropic(client)


def talk_with_anthropic(client: anthropic.Anthropic) -> None:
    asked = {"model": DEFAULT_MODEL, "max_tokens": 60, "extra_body": {"temperature": 0}}
    question = {"role": "user", "content": QUESTION}
    first = client.messages.create(messages=[question], **asked)
    assert (first.content[0].text, first.stop_reason) == (FIRST, "end_turn")
    turns = [
        question,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": "And of France?"},
    ]
    with client.messages.stream(messages=turns, **asked) as stream:
        pieces = list(stream.text_stream)
        second = stream.get_final_message()
    assert "".join(pieces) == second.content[0].text == SECOND
    assert len(pieces) > 3, "it must come in pieces"
    begun = [question, {"role": "assistant", "content": "The capital of Japan is"}]
    assert client.messages.create(messages=begun, **asked).content[0].text == " Tokyo."
    cached = client.messages.create(messages=turns, **asked).usage
    counted = client.messages.count_tokens(model=DEFAULT_MODEL, messages=turns).input_tokens
    assert cached.cache_read_input_tokens > 0
    assert cached.input_tokens + cached.cache_read_input_tokens == counted
    stopped = client.messages.create(messages=[question], stop_sequences=[" is"], **asked)
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " is")
    choice = {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}
    tools = {"tools": [WEATHER], "tool_choice": choice}
    with client.messages.stream(messages=[question], **tools, **asked) as stream:
        called = stream.get_final_message()
    [use] = [block for block in called.content if block.type == "tool_use"]
    assert called.stop_reason == "tool_use"
    assert use.input in ({"city": "Tokyo"}, {"city": "Kyoto"})
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}
    turns = [
        question,
        {"role": "assistant", "content": called.content},
        {"role": "user", "content": [result]},
    ]
    after = client.messages.create(messages=turns, tools=[WEATHER], **asked)
    assert after.content
    assert [model.id for model in client.models.list()] == [DEFAULT_MODEL]
    assert client.models.retrieve(DEFAULT_MODEL).max_input_tokens == 8192
    with pytest.raises(anthropic.NotFoundError) as refused:
        client.messages.create(**{**asked, "model": "no/such"}, messages=[question])
    assert refused.value.request_id.startswith("req_")
    assert refused.value.body["request_id"] == refused.value.request_id


def test_anthropic_for_node(server: Server, tmp_path: Path):
    path = program("anthropic", tmp_path, "@anthropic-ai/sdk@1.14.0")
    found = json.loads(run("node", path, server.url, DEFAULT_MODEL))
    assert (found["first"], found["second"], found["streamed"]) == (FIRST, SECOND, FIRST)
    assert found["pieces"] > 3, "it must come in pieces"
    assert found["counted"]
    [reason, name, given] = found["call"]
    assert (reason, name) == ("tool_use", "get_weather")
    assert given["city"] in ("Tokyo", "Kyoto")
    assert found["after"]
    assert found["models"] == [DEFAULT_MODEL]
    assert found["refusal"] == [404, "not_found_error", True]


def test_ollama_for_python(server: Server):
    with ollama.Client(host=server.url) as client:
        talk_with_ollama(client)


def talk_with_ollama(client: ollama.Client) -> None:
    options = {"temperature": 0}
    question = {"role": "user", "content": QUESTION}
    first = client.chat(DEFAULT_MODEL, messages=[question], options=options)
    assert first.message.content == FIRST
    turns = [question, first.message, {"role": "user", "content": "And of France?"}]
    parts = list(
        client.chat(f"{DEFAULT_MODEL}:latest", messages=turns, options=options, stream=True)
    )
    assert "".join(part.message.content for part in parts) == SECOND
    assert len(parts) > 3, "it must come in pieces"
    last = parts[-1]
    assert (last.done, last.done_reason) == (True, "stop")
    assert last.eval_count > 3
    assert 0 < last.eval_duration < last.total_duration
    assert 0 < last.prompt_eval_duration < last.total_duration
    schema = {
        "type": "object",
        "properties": {"capital": {"enum": ["Tokyo", "Kyoto"]}},
        "required": ["capital"],
        "additionalProperties": False,
    }
    made = client.generate(DEFAULT_MODEL, QUESTION, format=schema, options=options)
    assert json.loads(made.response)["capital"] in ("Tokyo", "Kyoto")
    four = {**options, "num_predict": 4}
    raw = client.generate(DEFAULT_MODEL, "The capital of", raw=True, options=four)
    assert (raw.eval_count, raw.done_reason) == (4, "length")
    [listed] = client.list().models
    assert listed.model == f"{DEFAULT_MODEL}:latest"
    assert client.show(DEFAULT_MODEL).capabilities == ["completion", "tools"]
    [loaded] = client.ps().models
    assert loaded.context_length == 8192
    with pytest.raises(ollama.ResponseError) as refused:
        client.chat("no/such", messages=[question])
    assert refused.value.status_code == 404


def test_ollama_copies_and_deletes_a_model_and_says_no_more(scripted: Server):
    named = {"source": "tests/second", "destination": "mine/copy"}
    with scripted.client() as client:
        for method, path, body in (
            ("POST", "/api/copy", named),
            ("DELETE", "/api/delete", {"model": "mine/copy"}),
        ):
            answer = client.request(method, path, json=body)
            assert (answer.status_code, answer.content) == (200, b"")
            assert not answer.headers["content-type"].startswith("application/json")
    with ollama.Client(host=scripted.url) as client:
        assert client.copy("tests/second", "mine/copy").status == "success"
        assert client.delete("mine/copy").status == "success"


def test_ollama_for_node(server: Server, tmp_path: Path):
    path = program("ollama", tmp_path, "ollama@0.6.4")
    found = json.loads(run("node", path, server.url, DEFAULT_MODEL))
    assert (found["first"], found["second"], found["streamed"]) == (FIRST, SECOND, FIRST)
    assert found["pieces"] > 3, "it must come in pieces"
    assert found["done"]
    assert found["rate"]
    assert found["shaped"]["capital"] in ("Tokyo", "Kyoto")
    assert found["models"] == [f"{DEFAULT_MODEL}:latest"]
    assert (found["shown"], found["loaded"]) == (["completion", "tools"], 1)
    assert found["refusal"] == ["ResponseError", 404]


def test_ollama_calls_a_tool_and_reads_its_result(agent_server: Server):
    parameters = {"type": "object", "properties": {"file_path": {"type": "string"}}}
    read = {"type": "function", "function": {"name": "Read", "parameters": parameters}}
    turns = [{"role": "user", "content": "Read the file /tmp/a.txt please"}]
    with ollama.Client(host=agent_server.url) as client:
        called = client.chat(LONG, messages=turns, tools=[read])
        [call] = called.message.tool_calls
        assert (call.function.name, call.function.arguments) == (
            "Read",
            {"file_path": "/tmp/a.txt"},
        )
        turns += [called.message, {"role": "tool", "content": "cats", "tool_name": "Read"}]
        assert client.chat(LONG, messages=turns, tools=[read]).message.content == f"{SAID}cats"


def test_the_coding_agent(agent_server: Server, tmp_path: Path):
    """It reads a file by a tool of its own, and gets to hear what is in it."""
    node = node_environment("agent", AGENT, heavy=True)
    note = tmp_path / "note.txt"
    note.write_text("The cat sat on the mat.\n")
    environment = {
        "HOME": str(tmp_path / "home"),
        "ANTHROPIC_BASE_URL": agent_server.url,
        "ANTHROPIC_API_KEY": "sk-none",
        "ANTHROPIC_MODEL": LONG,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": LONG,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    printed = run(
        *(node / "node_modules" / ".bin" / "claude", "-p", f"Read the file {note} and say it"),
        *("--allowedTools", "Read", "--output-format", "stream-json", "--verbose"),
        environment=environment,
        folder=tmp_path,
    )
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    blocks = [
        block
        for line in lines
        if line["type"] in ("assistant", "user")
        for block in line["message"]["content"]
    ]
    assert [block["type"] for block in blocks] == ["tool_use", "tool_result", "text"]
    assert blocks[0]["input"] == {"file_path": str(note)}
    assert "The cat sat on the mat." in blocks[1]["content"]
    assert blocks[2]["text"].startswith(SAID)
    assert "The cat sat on the mat." in blocks[2]["text"]
    end = lines[-1]
    assert (end["type"], end["is_error"]) == ("result", False)
    usage = end["usage"]
    assert usage["input_tokens"] > 8192, "no short context would do"
    assert usage["cache_read_input_tokens"] > 8192, "the second request is the first and a bit"
    assert os.fspath(note) in json.dumps(blocks[0])
