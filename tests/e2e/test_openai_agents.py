"""Agents and frameworks that speak OpenAI's API, unmodified, with a real server.

They are large: `ALL_CLIENTS=1` installs them, each once.
"""

import json
import shutil
from pathlib import Path

from tests.e2e.clients import PROGRAMS, node_environment, python_environment, run
from tests.e2e.server import DEFAULT_MODEL, Server

ANSWER = "The capital of Japan is Tokyo."
CODEX = """
model = "{model}"
model_provider = "local"
[model_providers.local]
name = "local"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "LOCAL_KEY"
"""


def test_codex(server: Server, tmp_path: Path):
    """Its prompt has 6,400 tokens, with tools of kinds that no model here can run."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(CODEX.format(model=DEFAULT_MODEL, url=server.url))
    folder = node_environment("codex", "@openai/codex@0.171.0", heavy=True)
    command = [folder / "node_modules/.bin/codex", "exec", "--skip-git-repo-check", "--json"]
    printed = run(
        *command,
        "Say hello.",
        environment={"CODEX_HOME": str(home), "LOCAL_KEY": "none"},
        timeout_s=600,
        folder=tmp_path,
    )
    events = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    [said] = [item["text"] for item in items if item["type"] == "agent_message"]
    assert said, "the model answers in words"
    [turn] = [event for event in events if event["type"] == "turn.completed"]
    assert turn["usage"]["input_tokens"] > 6000, "or this was not its own prompt"


def test_the_ai_sdk(server: Server, tmp_path: Path):
    packages = ("ai@6.0.326", "@ai-sdk/openai-compatible@2.0.92")
    folder = node_environment("ai_sdk", *packages, heavy=True)
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    program = shutil.copy(PROGRAMS / "ai_sdk_chat.mjs", tmp_path)
    found = json.loads(run("node", program, server.url, DEFAULT_MODEL))
    assert found["text"] == "".join(found["pieces"]) == ANSWER
    assert found["outputTokens"] == 8
    assert found["results"][0] in ("sunny in Tokyo", "sunny in Kyoto")
    assert found["object"]["city"] in ("Tokyo", "Kyoto")


def test_pydantic_ai(server: Server):
    python = python_environment("pydantic_ai", "pydantic-ai-slim[openai]==2.68.0", heavy=True)
    program = PROGRAMS / "pydantic_ai_chat.py"
    found = json.loads(run(python / "python", program, server.url, DEFAULT_MODEL))
    assert found["text"] == "".join(found["pieces"]) == ANSWER
    assert {found["by_tool"], found["by_schema"]} <= {"Tokyo", "Kyoto"}


def test_openai_agents(server: Server):
    python = python_environment("openai_agents", "openai-agents==0.24.0", heavy=True)
    program = PROGRAMS / "openai_agents_chat.py"
    found = json.loads(run(python / "python", program, server.url, DEFAULT_MODEL))
    for text, result in found.values():
        assert text == ANSWER
        assert result in ("sunny in Tokyo", "sunny in Kyoto")
    assert len(found) == 2
