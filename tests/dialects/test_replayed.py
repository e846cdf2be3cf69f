"""What frameworks sent, replayed without them: each field of it is served, on a strict server too.

The bodies are those that tests/e2e/test_frameworks.py makes them send, with shorter conversations.
"""

from typing import Any

import pytest

from app.contract.formats import Following, JsonSchema, Matching
from app.contract.generation import ToolChoice
from app.dialects.anthropic import routes as anthropic
from app.dialects.kit.passed_over import IGNORED
from app.dialects.locallab import routes as locallab
from app.dialects.ollama import routes as ollama
from app.dialects.openai import routes as openai
from tests.asgi_client import ask
from tests.dialects.openai.scripted import ScriptedModels, ScriptedService
from tests.fakes import MODEL_ID
from tests.hosts import app_over, host_over

CHAT, MESSAGES, OLLAMA = "/v1/chat/completions", "/v1/messages", "/api/chat"
RESPONSES, COMPLETIONS = "/v1/responses", "/v1/completions"
TURNS = [
    {"role": "system", "content": "You answer questions about cities."},
    {"role": "user", "content": "What is the capital of Japan?"},
]
SCHEMA = {
    "additionalProperties": False,
    "description": "A city.",
    "properties": {
        "name": {"enum": ["Tokyo", "Kyoto"], "title": "Name", "type": "string"},
        "is_capital": {"title": "Is Capital", "type": "boolean"},
    },
    "required": ["name", "is_capital"],
    "title": "City",
    "type": "object",
}
TOOL = {
    "type": "function",
    "function": {"name": "City", "description": "A city.", "parameters": SCHEMA},
}
NAMED = ToolChoice("required", "City")
STRICT = {"type": "json_schema", "json_schema": {"name": "City", "strict": True, "schema": SCHEMA}}
USAGE = {"include_usage": True}

BODIES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    (
        "instructor",
        CHAT,
        {"tool_choice": {"type": "function", "function": {"name": "City"}}, "tools": [TOOL]},
        {"tool_choice": NAMED, "parallel_tool_calls": False},
    ),
    (
        "instructor",
        CHAT,
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "City", "schema": SCHEMA},
            },
            "stream": True,
        },
        {"response_format": JsonSchema(SCHEMA)},
    ),
    (
        "instructor",
        RESPONSES,
        {
            "max_output_tokens": 60,
            "text": {
                "format": {"type": "json_schema", "name": "City", "strict": True, "schema": SCHEMA}
            },
            "tool_choice": {"type": "function", "name": "City"},
            "tools": [{"type": "function", "name": "City", "parameters": SCHEMA, "strict": True}],
        },
        {"tool_choice": NAMED, "parallel_tool_calls": False},
    ),
    (
        "instructor",
        MESSAGES,
        {
            "system": TURNS[0]["content"],
            "tool_choice": {"type": "tool", "name": "City", "disable_parallel_tool_use": True},
            "tools": [{"name": "City", "description": "A city.", "input_schema": SCHEMA}],
        },
        {"tool_choice": NAMED, "parallel_tool_calls": False},
    ),
    (
        "smolagents",
        CHAT,
        {
            "messages": [
                {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}
                for turn in TURNS
            ],
            "max_tokens": 100,
            "parallel_tool_calls": False,
            "tool_choice": "required",
            "tools": [TOOL],
            "temperature": 0,
        },
        {"tool_choice": ToolChoice("required")},
    ),
    ("smolagents", CHAT, {"stream": True, "stream_options": USAGE, "temperature": 0}, {}),
    (
        "LlamaIndex, Haystack and DSPy",
        CHAT,
        {"response_format": STRICT, "stream": False, "temperature": 0.0, "n": 1},
        {"response_format": JsonSchema(SCHEMA)},
    ),
    ("LlamaIndex", COMPLETIONS, {"max_tokens": 8, "stream": False, "temperature": 0.0}, {}),
    (
        "outlines",
        CHAT,
        {"structured_outputs": {"json": SCHEMA}, "stream": True},
        {"response_format": JsonSchema(SCHEMA)},
    ),
    (
        "outlines",
        CHAT,
        {"structured_outputs": {"regex": "(Tokyo|Kyoto)"}},
        {"response_format": Matching("(Tokyo|Kyoto)")},
    ),
    (
        "outlines",
        CHAT,
        {"structured_outputs": {"grammar": 'root ::= "Tokyo" | "Kyoto"'}},
        {"response_format": Following('root ::= "Tokyo" | "Kyoto"')},
    ),
    (
        "LangChain",
        MESSAGES,
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}, "stream": True},
        {"response_format": JsonSchema(SCHEMA)},
    ),
    (
        "LangChain",
        OLLAMA,
        {"format": SCHEMA, "options": {"num_predict": 64, "temperature": 0.0}, "tools": []},
        {"response_format": JsonSchema(SCHEMA), "max_tokens": 64},
    ),
    (
        "guidellm",
        CHAT,
        {
            "stream": True,
            "stream_options": {**USAGE, "continuous_usage_stats": True},
            "max_completion_tokens": 8,
            "ignore_eos": True,
        },
        {"ignore_eos": True, "max_tokens": 8},
    ),
]


@pytest.mark.parametrize(
    ("path", "fields", "meant"),
    [pytest.param(*body[1:], id=f"{body[0]} {body[1]}") for body in BODIES],
)
async def test_what_a_framework_sent_is_served_and_nothing_passed_over(
    path: str, fields: dict[str, Any], meant: dict[str, Any]
):
    least: dict[str, dict[str, Any]] = {
        CHAT: {"messages": TURNS},
        OLLAMA: {"messages": TURNS},
        MESSAGES: {"messages": TURNS[1:], "max_tokens": 64},
        RESPONSES: {"input": TURNS},
        COMPLETIONS: {"prompt": "The capital of Japan is"},
    }
    service = ScriptedService()
    host = host_over(service, ScriptedModels(), strict_parameters=True)
    app = app_over(host, [locallab, openai, anthropic, ollama])
    answer = await ask(app, "POST", path, {"model": MODEL_ID, **least[path], **fields})
    assert answer.status == 200, answer.body
    assert IGNORED not in answer.headers
    [request] = service.requests
    assert {name: getattr(request, name) for name in meant} == meant
