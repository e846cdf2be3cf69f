"""What is sent and answered, over a service that records requests and plays events."""

import asyncio
import json
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import BaseModel, TypeAdapter

from app.contract.conversation import ChatMessage, TextPart, ToolCall
from app.contract.formats import JsonSchema
from app.contract.generation import (
    Finished,
    Reasoning,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolChoice,
)
from app.contract.sampling import FinishReason, SamplingParams
from app.contract.usage import Usage
from app.dialects.anthropic import routes as anthropic
from app.dialects.kit import streaming
from app.dialects.kit.passed_over import IGNORED
from app.dialects.locallab import routes as locallab
from app.dialects.openai import routes as openai
from app.errors import EngineFailure
from tests.asgi_client import Answer, ask
from tests.dialects.openai.scripted import (
    HI,
    ScriptedGeneration,
    ScriptedModels,
    ScriptedService,
    end,
)
from tests.fakes import MODEL_ID, FakeService
from tests.hosts import app_over, host_over

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
WEATHER = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


async def send(
    service: ScriptedService,
    path: str = MESSAGES,
    *,
    headers: dict[str, str] | None = None,
    strict: bool = False,
    **fields: Any,
) -> Answer:
    """Send the least that the endpoint takes, and more."""
    host = host_over(service, ScriptedModels(), strict_parameters=strict)
    least: dict[str, Any] = {"model": MODEL_ID, "messages": HI}
    if path == MESSAGES:
        least["max_tokens"] = 20
    app = app_over(host, [locallab, openai, anthropic])
    return await ask(app, "POST", path, {**least, **fields}, headers=headers)


def events_of(answer: Answer) -> list[tuple[str, dict[str, Any]]]:
    """(name, data) of each event."""
    events = []
    for block in answer.body.decode().strip("\n").split("\n\n"):
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def unknown_fields(record: BaseModel, at: str = "") -> list[str]:
    """Fields that the published types don't have, below a record of theirs too."""
    found = [f"{at}.{name}" for name in record.model_extra or {}]
    for name in type(record).model_fields:
        value = getattr(record, name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, BaseModel):
                found += unknown_fields(item, f"{at}.{name}")
    return found


def call(name: str, arguments: str, index: int = 0) -> list[ToolCallDelta]:
    half = len(arguments) // 2
    return [
        ToolCallDelta(index, f"call_{index}", name, ""),
        ToolCallDelta(index, None, None, arguments[:half]),
        ToolCallDelta(index, None, None, arguments[half:]),
    ]


SCRIPT = [
    TextDelta("Let me "),
    TextDelta("look."),
    *call("get_weather", '{"city": "Oslo"}'),
    *call("get_weather", '{"city": "Rome"}', 1),
    end(tokens=9),
]
USAGE = {
    "input_tokens": 2,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 1,
    "output_tokens": 9,
    "output_tokens_details": {"thinking_tokens": 0},
}
CONTENT = [
    {"type": "text", "text": "Let me look."},
    {"type": "tool_use", "id": "toolu_0", "name": "get_weather", "input": {"city": "Oslo"}},
    {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Rome"}},
]


async def test_a_stream_is_the_published_one_field_by_field():
    answer = await send(ScriptedService(SCRIPT), stream=True, tools=[WEATHER])
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer)
    assert all(name == data["type"] for name, data in events)
    for _, data in events:
        if data["type"] != "ping":  # which the published types leave out
            assert unknown_fields(EVENT.validate_python(data)) == []
    told_of_cache = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
    message = events[0][1]["message"]
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": MODEL_ID,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            **USAGE,
            "output_tokens": 0,
            "cache_creation": told_of_cache,
            "service_tier": "standard",
        },
    }

    def start(index: int, block: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_start", "index": index, "content_block": block}

    def delta(index: int, kind: str, **piece: str) -> dict[str, Any]:
        told = {"type": kind, **piece}
        return {"type": "content_block_delta", "index": index, "delta": told}

    def stop(index: int) -> dict[str, Any]:
        return {"type": "content_block_stop", "index": index}

    used = [{**block, "input": {}} for block in CONTENT[1:]]
    assert [data for _, data in events[1:]] == [
        start(0, {"type": "text", "text": ""}),
        {"type": "ping"},
        delta(0, "text_delta", text="Let me "),
        delta(0, "text_delta", text="look."),
        stop(0),
        start(1, used[0]),
        delta(1, "input_json_delta", partial_json='{"city":'),
        delta(1, "input_json_delta", partial_json=' "Oslo"}'),
        stop(1),
        start(2, used[1]),
        delta(2, "input_json_delta", partial_json='{"city":'),
        delta(2, "input_json_delta", partial_json=' "Rome"}'),
        stop(2),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": USAGE,
        },
        {"type": "message_stop"},
    ]


async def test_a_whole_answer_is_the_published_one():
    answer = await send(ScriptedService(SCRIPT), tools=[WEATHER])
    assert answer.status == 200
    assert unknown_fields(Message.model_validate(answer.json)) == []
    assert answer.json["content"] == CONTENT
    assert answer.json["usage"].items() >= USAGE.items()
    assert (answer.json["stop_reason"], answer.json["stop_sequence"]) == ("tool_use", None)


@pytest.mark.parametrize(
    ("finished", "reason", "sequence"),
    [
        (end(), "end_turn", None),
        (end(FinishReason.LENGTH, tokens=20), "max_tokens", None),
        (end(FinishReason.LENGTH, tokens=19), "model_context_window_exceeded", None),
        (Finished(FinishReason.STOP, Usage(3, 2), stop_string="END"), "stop_sequence", "END"),
    ],
)
async def test_why_an_answer_ended(finished: Finished, reason: str, sequence: str | None):
    answer = await send(ScriptedService([TextDelta("x"), finished]))
    assert (answer.json["stop_reason"], answer.json["stop_sequence"]) == (reason, sequence)


async def test_a_call_that_was_cut_off_ends_at_the_tokens_allowed():
    script = [
        *call("get_weather", '{"city": "Os'),
        end(FinishReason.LENGTH, tokens=20, call_cut=True),
    ]
    answer = await send(ScriptedService(script), tools=[WEATHER])
    assert answer.json["stop_reason"] == "max_tokens"
    assert answer.json["content"][0]["input"] == {}


async def test_fields_reach_the_generator():
    service = ScriptedService()
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    await send(
        service,
        system=[{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}],
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        stop_sequences=["END"],
        tools=[WEATHER],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        output_config={"format": {"type": "json_schema", "schema": schema}},
        metadata={"user_id": "ada"},
    )
    [request] = service.requests
    assert request.messages == [
        ChatMessage("system", (TextPart("Be"), TextPart("brief."))),
        ChatMessage.of("user", "Hi"),
    ]
    assert request.sampling == SamplingParams(temperature=0.5, top_p=0.9, top_k=7)
    assert (request.max_tokens, request.stop) == (20, ("END",))
    assert request.tools[0].parameters == WEATHER["input_schema"]
    assert request.tool_choice == ToolChoice("required")
    assert not request.parallel_tool_calls
    assert request.response_format == JsonSchema(schema)


async def test_blocks_become_turns():
    service = ScriptedService()
    result = {"type": "tool_result", "tool_use_id": "toolu_1"}
    marked = {"cache_control": {"type": "ephemeral"}}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Oslo?", **marked}]},
        {"role": "user", "content": "Now."},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "text", "text": "Wait."},
                {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"a": 1}},
                {"type": "tool_use", "id": "toolu_2", "name": "get_weather", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    **result,
                    "content": [{"type": "text", "text": "rain"}, {"type": "text", "text": "!"}],
                },
                {**result, "tool_use_id": "toolu_2", "is_error": True},
                {"type": "text", "text": "Well?"},
            ],
        },
        {"role": "system", "content": "Hurry."},
    ]
    await send(service, messages=turns)
    assert service.requests[0].messages == [
        ChatMessage("user", (TextPart("Oslo?"), TextPart("Now."))),
        ChatMessage(
            "assistant",
            (TextPart("Wait."),),
            (
                ToolCall("toolu_1", "get_weather", '{"a":1}'),
                ToolCall("toolu_2", "get_weather", "{}"),
            ),
            reasoning="hm",
        ),
        ChatMessage("tool", (TextPart("rain"), TextPart("!")), tool_call_id="toolu_1"),
        ChatMessage.of("tool", "", tool_call_id="toolu_2"),
        ChatMessage.of("user", "Well?"),
        ChatMessage.of("system", "Hurry."),
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, ToolChoice("auto")),
        ({"type": "none"}, ToolChoice("none")),
        ({"type": "tool", "name": "get_weather"}, ToolChoice("required", "get_weather")),
    ],
)
async def test_tool_choices(choice: dict[str, str], expected: ToolChoice):
    service = ScriptedService()
    await send(service, tools=[WEATHER], tool_choice=choice)
    assert service.requests[0].tool_choice == expected


async def test_a_deferred_tool_is_shown_once_a_search_has_named_it():
    later = {**WEATHER, "name": "later", "defer_loading": True}
    called = {"type": "tool_use", "id": "t", "name": "get_weather", "input": {}}
    found = [{"type": "tool_reference", "tool_name": "later"}]
    turns = [
        *HI,
        {"role": "assistant", "content": [called]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "content": found}],
        },
    ]
    for messages, names in ((HI, ["get_weather"]), (turns, ["get_weather", "later"])):
        service = ScriptedService()
        await send(service, messages=messages, tools=[WEATHER, later])
        assert [tool.name for tool in service.requests[0].tools] == names


BEGUN = {"messages": [*HI, {"role": "assistant", "content": "I am"}]}
USES = {
    "role": "assistant",
    "content": [
        {"type": "tool_use", "id": "t", "name": "get_weather", "input": {}},
        {"type": "text", "text": "I"},
    ],
}
IMAGE = {"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temprature": 1}, "unrecognized request argument: 'temprature'"),
        ({"max_tokens": 0}, "max_tokens is 0, expected integer >= 1"),
        (
            {"messages": [{"role": "user", "content": [IMAGE]}]},
            "messages[0].content[0].type is 'im",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "document"}]}]},
            "messages[0].content[0].type is 'document', which is not supported here",
        ),
        (
            {"messages": [*HI, {"role": "assistant", "content": "I "}]},
            "messages[1].content is 'I '",
        ),
        ({"messages": [*HI, {"role": "assistant", "content": []}]}, "messages[1].content is ''"),
        ({"messages": [*HI, USES]}, "messages[1].content is 'I', expected text alone"),
        ({**BEGUN, "thinking": {"type": "adaptive"}}, "thinking.type is 'adaptive', expected 'dis"),
        (
            {**BEGUN, "output_config": {"format": {"type": "json_schema", "schema": {}}}},
            "output_config.format is 'json_schema', expected none where the last turn",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}
                ]
            },
            "messages[0].content[0].tool_use_id is 'x', expected the id of an earlier",
        ),
        ({"tools": [{"name": "x"}]}, "tools[0].input_schema is None, expected object"),
        ({"tool_choice": {"type": "any"}}, "tool_choice is 'required', expected tools"),
        (
            {"mcp_servers": [{"name": "x"}]},
            "mcp_servers is [{'name': 'x'}], which is not supported",
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            "thinking.budget_tokens is 1024",
        ),
    ],
)
async def test_what_would_change_the_answer_is_refused_by_name(
    fields: dict[str, Any], message: str
):
    service = ScriptedService()
    answer = await send(service, **fields)
    assert (answer.status, answer.json["type"]) == (400, "error")
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["error"]["message"].startswith(message), answer.json
    assert service.requests == []


async def test_an_answer_goes_on_with_the_assistants_last_turn():
    service = FakeService(" fine.")
    app = app_over(host_over(service))
    body = {"model": MODEL_ID, "messages": BEGUN["messages"], "max_tokens": 20}
    answer = (await ask(app, "POST", MESSAGES, body)).json
    assert answer["content"] == [{"type": "text", "text": " fine."}], "what is new, and no more"
    [prompt] = service.prompts()
    assert prompt.endswith("<|im_start|>assistant\nI am")
    counted = await ask(app, "POST", COUNT, {k: body[k] for k in ("model", "messages")})
    assert counted.json == {"input_tokens": answer["usage"]["input_tokens"]}
    whole = await ask(app, "POST", COUNT, {"model": MODEL_ID, "messages": HI})
    assert counted.json != whole.json, "or its turn was not counted"


@pytest.mark.parametrize("last", [USES["content"][:1], USES["content"], "I am "])
async def test_a_turn_that_no_answer_goes_on_with_is_counted(last: Any):
    app = app_over(host_over(FakeService()))
    turns = [*HI, {"role": "assistant", "content": last}]
    counts = []
    for messages in (turns[:-1], turns):
        answer = await ask(app, "POST", COUNT, {"model": MODEL_ID, "messages": messages})
        assert answer.status == 200, answer.body
        counts.append(answer.json["input_tokens"])
    assert counts[0] < counts[1]


PASSED = {
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "context_management": {"edits": []},
    "tools": [WEATHER, {"type": "web_search_20250305", "name": "web_search"}],
}


async def test_what_changes_no_answer_is_passed_over_and_said():
    service = ScriptedService()
    for stream in (False, True):
        answer = await send(service, **PASSED, stream=stream)
        assert answer.status == 200
        named = answer.headers[IGNORED].split(", ")
        assert set(named) == {"thinking", "output_config.effort", "context_management", "tools[1]"}
    assert [tool.name for tool in service.requests[0].tools] == ["get_weather"]
    assert IGNORED not in (await send(service)).headers
    refused = await send(service, **PASSED, strict=True)
    assert refused.status == 400


async def test_a_field_that_we_do_not_know_is_taken_from_a_client_with_betas():
    headers = {"anthropic-beta": "new-thing-2027-01-01"}
    answer = await send(ScriptedService(), new_thing=1, headers=headers)
    assert (answer.status, answer.headers[IGNORED]) == (200, "new_thing")
    answer = await send(ScriptedService(), **{"new thing\n": 1}, headers=headers)
    assert answer.status == 400


async def test_tokens_are_counted_with_the_tools_that_are_shown():
    for choice, shown in (("auto", ["get_weather"]), ("none", [])):
        service = ScriptedService()
        choices = {"type": choice}
        answer = await send(
            service, COUNT, system="Be brief.", tools=[WEATHER], tool_choice=choices
        )
        assert (answer.status, answer.json) == (200, {"input_tokens": 3})
        turns = [ChatMessage.of("system", "Be brief."), ChatMessage.of("user", "Hi")]
        assert service.tokenized == [(turns, MODEL_ID, False)]
        assert [tool.name for tool in service.shown] == shown


async def test_a_failure_in_a_stream_is_an_error_event():
    service = ScriptedService([TextDelta("Hel"), EngineFailure("it broke")])
    answer = await send(service, stream=True)
    events = events_of(answer)
    assert events[-1] == (
        "error",
        {
            "type": "error",
            "error": {"type": "api_error", "message": "it broke"},
            "request_id": answer.headers["request-id"],
        },
    )
    assert "message_stop" not in [name for name, _ in events]


async def test_a_long_prompt_is_pinged_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streaming, "PING_AFTER_S", 0.01)
    gate, pings = asyncio.Event(), 0
    service = ScriptedService([gate, TextDelta("Hello"), end()])

    def count(answer: Answer) -> None:
        nonlocal pings
        pings += answer.chunks[-1].count(b"event: ping")
        if pings == 3:
            gate.set()

    host = host_over(service, ScriptedModels())
    body = {"model": MODEL_ID, "messages": HI, "max_tokens": 20, "stream": True}
    app = app_over(host, [locallab, openai, anthropic])
    answer = await ask(app, "POST", MESSAGES, body, on_chunk=count)
    names = [name for name, _ in events_of(answer)]
    assert names[:4] == ["message_start", "ping", "ping", "ping"]
    assert names[-5:] == [
        "ping",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert answer.complete


THOUGHT = [
    ReasoningDelta("Let me"),
    ReasoningDelta(" see."),
    TextDelta("It is 4."),
    Finished(FinishReason.STOP, Usage(3, 9, 1, 5)),
]
THINKING = {"type": "enabled", "budget_tokens": 1024}


@pytest.mark.parametrize("display", ["summarized", "omitted"])
async def test_what_a_model_thinks_is_a_block_of_its_own(
    monkeypatch: pytest.MonkeyPatch, display: str
):
    monkeypatch.setattr(ScriptedGeneration, "thinks", True)
    asked = {"thinking": {**THINKING, "display": display}, "max_tokens": 2000}
    service = ScriptedService(THOUGHT)
    answer = await send(service, **asked, stream=True)
    assert IGNORED not in answer.headers
    events = [data for _, data in events_of(answer)]
    for event in events:
        if event["type"] != "ping":
            assert unknown_fields(EVENT.validate_python(event)) == []
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    shown = [{"type": "thinking_delta", "thinking": text} for text in ("Let me", " see.")]
    assert deltas == [
        *(shown if display == "summarized" else []),
        {"type": "signature_delta", "signature": "unsigned"},
        {"type": "text_delta", "text": "It is 4."},
    ]
    starts = [e["content_block"] for e in events if e["type"] == "content_block_start"]
    assert starts[0] == {"type": "thinking", "thinking": "", "signature": ""}
    assert events[-2]["usage"]["output_tokens_details"] == {"thinking_tokens": 5}
    whole = (await send(ScriptedService(THOUGHT), **asked)).json
    thought = "Let me see." if display == "summarized" else ""
    assert whole["content"] == [
        {"type": "thinking", "thinking": thought, "signature": "unsigned"},
        {"type": "text", "text": "It is 4."},
    ]
    assert unknown_fields(Message.model_validate(whole)) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Reasoning("none")),
        ({"thinking": {"type": "disabled"}}, Reasoning("none")),
        ({"thinking": {"type": "adaptive"}}, Reasoning()),
        ({"thinking": THINKING}, Reasoning(None, 1024)),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            Reasoning("low"),
        ),
    ],
)
async def test_a_model_thinks_only_if_the_client_lets_it(
    fields: dict[str, Any], expected: Reasoning
):
    service = ScriptedService()
    await send(service, max_tokens=2000, **fields)
    assert service.requests[0].reasoning == expected
