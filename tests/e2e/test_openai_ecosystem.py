"""The field's other clients, unmodified, in one short conversation each with the real model."""

import json
import shutil
from pathlib import Path

from tests.e2e.clients import PROGRAMS, node_environment, python_environment, run
from tests.e2e.server import DEFAULT_MODEL, Server

FIRST = "The capital of Japan is Tokyo."
SECOND = "The capital of France is Paris."
"""Its answer is right only if the first turn came along: it is asked `And of France?`."""


def test_openai_for_node(server: Server, tmp_path: Path):
    folder = node_environment("node", "openai@7.57.0")
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    program = shutil.copy(PROGRAMS / "node_chat.mjs", tmp_path)
    found = json.loads(run("node", program, server.url, DEFAULT_MODEL))
    assert (found["first"], found["second"]) == (FIRST, SECOND)
    assert found["pieces"] > 5, "it must come in pieces"
    assert found["usage"] > 0
    assert found["cities"], "its tool must have been called"
    assert set(found["cities"]) <= {"Tokyo", "Kyoto"}
    assert found["responses"] == FIRST
    assert found["refusal"] == [True, "model_not_found", True]


def test_langchain(server: Server):
    environment = python_environment("langchain", "langchain-openai==1.7.3")
    program = PROGRAMS / "langchain_chat.py"
    found = json.loads(run(environment / "python", program, server.url, DEFAULT_MODEL))
    assert (found["first"], found["second"]) == (FIRST, SECOND)
    assert found["pieces"] > 5, "it must come in pieces"
    assert found["streamed_usage"]["output_tokens"] > 0
    assert found["city"].keys() == {"name", "is_capital"}
    [name, arguments] = found["call"]
    assert (name, arguments.keys()) == ("get_weather", {"city"})
    assert found["after"]
    assert found["responses"] == FIRST


def test_litellm(server: Server):
    environment = python_environment("litellm", "litellm==1.106.2")
    printed = run(
        environment / "python",
        PROGRAMS / "litellm_chat.py",
        server.url,
        DEFAULT_MODEL,
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # or it asks the network
    )
    found = json.loads(printed.splitlines()[-1])
    assert (found["first"], found["second"], found["async"]) == (FIRST, SECOND, FIRST)
    assert found["pieces"] > 5, "it must come in pieces"
    # it knows this case by our code and words, not by the status alone
    assert found["too_long"] == "ContextWindowExceededError"
    assert found["no_model"] == "NotFoundError"


def test_llm(server: Server, tmp_path: Path):
    environment = python_environment("llm", "llm==0.36")
    model = {
        "model_id": "ours",
        "model_name": DEFAULT_MODEL,
        "api_base": f"{server.url}/v1",
        "supports_schema": True,
    }
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))  # JSON is YAML

    def llm(*arguments: str) -> str:
        return run(environment / "llm", *arguments, environment={"LLM_USER_PATH": str(tmp_path)})

    greedy = ("-o", "temperature", "0")
    question = "What is the capital of Japan?"
    assert llm("-m", "ours", "--no-stream", *greedy, question).strip() == FIRST
    assert llm("--continue", *greedy, "And of France?").strip() == SECOND
    [last] = json.loads(llm("logs", "list", "--count", "1", "--json"))
    assert last["response_json"]["object"] == "chat.completion.chunk", "it must be streamed"
    # closed, for where more keys are allowed the small model finds more, on some CPUs without end
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "is_capital": {"type": "boolean"}},
        "required": ["name", "is_capital"],
        "additionalProperties": False,
    }
    city = json.loads(llm("-m", "ours", "--schema", json.dumps(schema), *greedy, question))
    assert city.keys() == {"name", "is_capital"}
