"""What clients send and nothing is done with: taken, named in a header, refused by a strict server.

The bodies are those that clients sent, shortened.
"""

import pytest

from app.contract.conversation import ChatMessage, ToolCall
from app.contract.generation import ToolChoice
from app.dialects.kit.passed_over import IGNORED
from app.dialects.locallab import routes as locallab
from app.dialects.openai import routes as openai
from app.dialects.openai.chat_schemas import CHAT_RULES
from app.dialects.openai.completions_schemas import COMPLETIONS_RULES
from app.dialects.openai.responses.schemas import RESPONSES_RULES
from tests.asgi_client import Answer, ask
from tests.dialects.openai.scripted import (
    CHAT,
    COMPLETIONS,
    HI,
    NEEDED,
    RESPONSES,
    ScriptedModels,
    ScriptedService,
    post,
)
from tests.hosts import app_over, host_over

RULES = {CHAT: CHAT_RULES, COMPLETIONS: COMPLETIONS_RULES, RESPONSES: RESPONSES_RULES}
FLAT = {"type": "function", "name": "look_up"}
NESTED = {"type": "function", "function": {"name": "look_up"}}
OTHER = {"type": "function", "function": {"name": "other"}}


async def strictly(path: str, **fields: object) -> Answer:
    host = host_over(ScriptedService(), ScriptedModels(), strict_parameters=True)
    return await ask(
        app_over(host, [locallab, openai]), "POST", path, {**NEEDED.get(path, {}), **fields}
    )


@pytest.mark.parametrize("path", NEEDED)
async def test_harmless_fields_are_taken_and_named(path):
    names = list(RULES[path].ignored)
    for some in (names[at : at + 15] for at in range(0, len(names), 15)):
        answer = await post(ScriptedService(), path, **{name: {"x": 1} for name in some})
        assert answer.status == 200, answer.body
        assert answer.headers[IGNORED] == ", ".join(some)
    for name in (names[0], names[-1]):
        refused = await strictly(path, **{name: {"x": 1}})
        assert (refused.status, refused.json["error"]["param"]) == (400, name)


@pytest.mark.parametrize(
    ("path", "fields", "noted"),
    [
        (CHAT, {"stream_options": {"include_usage": True}}, "stream_options"),
        (CHAT, {"return_progress": True}, "return_progress"),
        (COMPLETIONS, {"return_progress": True}, "return_progress"),
        (CHAT, {"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        (CHAT, {"chat_id": "c", "session_id": "s"}, "chat_id, session_id"),
        (CHAT, {"tools": [NESTED, {"type": "custom", "custom": {}}]}, "tools[1].type"),
        (
            CHAT,
            {"tools": [{**NESTED, "cache_control": {"type": "ephemeral"}}]},
            "tools[0].cache_control",
        ),
        (
            CHAT,
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "x", "cache_control": {}}],
                    }
                ]
            },
            "messages[0].content[0].cache_control",
        ),
        (RESPONSES, {"tools": [FLAT, {"type": "web_search"}]}, "tools[1].type"),
        (RESPONSES, {"tools": [{"type": "namespace", "tools": [FLAT]}]}, "tools[0].type"),
        (RESPONSES, {"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        (RESPONSES, {"include": ["file_search_call.results"]}, "include[0]"),
        (RESPONSES, {"text": {"verbosity": "low"}}, "text.verbosity"),
    ],
)
async def test_what_is_harmless_inside_is_named_by_its_path(path, fields, noted):
    answer = await post(ScriptedService(), path, **fields)
    assert answer.status == 200, answer.body
    assert answer.headers[IGNORED] == noted
    refused = await strictly(path, **fields)
    assert (refused.status, refused.json["error"]["param"]) in ((400, n) for n in noted.split(", "))


async def test_nothing_is_named_where_nothing_was_passed_over():
    answer = await post(ScriptedService(), CHAT, temperature=0.5, service_tier="auto", typical_p=1)
    assert answer.status == 200
    assert IGNORED not in answer.headers


async def test_no_model_is_offered_a_tool_that_it_cannot_run():
    service = ScriptedService()
    tools = [FLAT, {"type": "local_shell"}, {"type": "namespace", "name": "n", "tools": [FLAT]}]
    await post(service, RESPONSES, tools=tools)
    assert [tool.name for tool in service.requests[0].tools] == ["look_up"]


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_only_allowed_tools_are_shown(mode):
    service = ScriptedService()
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [OTHER]}}
    answer = await post(service, CHAT, tools=[NESTED, OTHER], tool_choice=allowed)
    assert answer.status == 200, answer.body
    flat = {"type": "allowed_tools", "mode": mode, "tools": [{"type": "function", "name": "other"}]}
    await post(service, RESPONSES, tools=[FLAT, {**FLAT, "name": "other"}], tool_choice=flat)
    for request in service.requests:
        assert [tool.name for tool in request.tools] == ["other"]
        assert request.tool_choice == ToolChoice(mode)


async def test_what_codex_sends_is_served():
    """Of codex 0.171, shortened: a second turn, after a call."""
    service = ScriptedService()
    answer = await post(
        service,
        RESPONSES,
        stream=True,
        input=[
            {"type": "message", "id": "m", "role": "developer", "content": [_text("Be brief.")]},
            {"type": "message", "id": "n", "role": "user", "content": [_text("List files.")]},
            {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "x"},
            {"type": "function_call", "name": "sh", "arguments": '{"c":"ls"}', "call_id": "c1"},
            {"type": "function_call_output", "call_id": "c1", "output": "a.txt"},
            {"type": "custom_tool_call", "name": "apply_patch", "input": "p", "call_id": "c2"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": "done"},
        ],
        tools=[
            {**FLAT, "strict": False, "parameters": {"type": "object", "properties": {}}},
            {"type": "namespace", "name": "multi_agent_v1", "tools": [FLAT]},
            {"type": "web_search", "external_web_access": False},
        ],
        tool_choice="auto",
        parallel_tool_calls=True,
        reasoning={"summary": "auto"},
        store=False,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
        client_metadata={"session_id": "s"},
    )
    assert answer.status == 200, answer.body
    assert answer.headers[IGNORED] == (
        "tools[1].type, tools[2].type, client_metadata, reasoning.summary"
    )
    assert service.requests[0].messages == [
        ChatMessage.of("developer", "Be brief."),
        ChatMessage.of("user", "List files."),
        ChatMessage.of("assistant", "", (ToolCall("c1", "sh", '{"c":"ls"}'),)),
        ChatMessage.of("tool", "a.txt", tool_call_id="c1"),
        ChatMessage.of("assistant", "", (ToolCall("c2", "apply_patch", '{"input":"p"}'),)),
        ChatMessage.of("tool", "done", tool_call_id="c2"),
    ]


def _text(text: str) -> dict[str, str]:
    return {"type": "input_text", "text": text}


@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/responses"])
async def test_paths_answer_without_v1_and_without_a_model(path):
    needed = {name: value for name, value in NEEDED[f"/v1{path}"].items() if name != "model"}
    service = ScriptedService()
    answer = await post(service, path, **needed)
    assert answer.status == 200, answer.body
    wrong = await post(service, path, **needed, temperature=3)
    assert wrong.json["error"]["param"] == "temperature", "in OpenAI's envelope"


async def test_models_are_listed_without_v1_and_locallab_keeps_its_own():
    application = app_over(host_over(ScriptedService(), ScriptedModels()), [locallab, openai])
    listed = await ask(application, "GET", "/models")
    assert listed.json == (await ask(application, "GET", "/v1/models")).json
    assert (await ask(application, "GET", "/models/available")).status == 200


async def test_metadata_of_any_kind_comes_back():
    metadata = {"a": 1, "b": {"c": [True]}}
    answer = await post(ScriptedService(), RESPONSES, metadata=metadata)
    assert answer.json["metadata"] == metadata
    assert (await post(ScriptedService(), CHAT, metadata=metadata)).status == 200


async def test_a_role_of_the_model_s_own_reaches_its_template():
    service = ScriptedService()
    messages = [*HI, {"role": "ipython", "content": "7"}]
    assert (await post(service, CHAT, messages=messages)).status == 200
    assert service.requests[0].messages[1] == ChatMessage.of("ipython", "7")
