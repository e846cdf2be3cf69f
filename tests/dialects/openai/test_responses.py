"""Whole answers and events of `POST /v1/responses`, compared as a whole."""

import json
import re

import pytest

from app.contract.generation import TextDelta, ToolCallDelta
from app.contract.sampling import FinishReason
from app.errors import EngineFailure
from tests.asgi_client import Answer
from tests.dialects.openai.scripted import RESPONSES, ScriptedService, end, logprob, post
from tests.fakes import MODEL_ID

SCHEMA = {"type": "object"}
CALL = [ToolCallDelta(0, "c1", "f", ""), ToolCallDelta(0, None, None, '{"a":1}')]
PART = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}


def message(status: str, *content: dict) -> dict:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": list(content),
    }


def call(status: str, arguments: str = "") -> dict:
    return {
        "id": "fc_1",
        "type": "function_call",
        "status": status,
        "call_id": "c1",
        "name": "f",
        "arguments": arguments,
    }


def plain(value: object) -> object:
    """The same with ids that can be written down."""
    return json.loads(re.sub(r'"(resp|msg|fc)_[0-9a-f]{32}"', r'"\1_1"', json.dumps(value)))


def events(answer: Answer) -> list[dict]:
    """The events, whose names and numbers are checked."""
    found = []
    for number, block in enumerate(answer.body.decode().removesuffix("\n\n").split("\n\n")):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event.pop("sequence_number") == number
        found.append(plain(event))
    return found


async def test_a_whole_answer_shows_what_was_asked():
    answer = await post(
        ScriptedService(),
        RESPONSES,
        instructions="Be brief.",
        metadata={"a": "b"},
        temperature=0.5,
        user="ada",
        tools=[{"type": "function", "name": "f", "parameters": SCHEMA}],
        text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
    )
    body = plain(answer.json)
    assert answer.status == 200
    assert body.pop("created_at") <= body.pop("completed_at")
    assert body == {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": "Be brief.",
        "max_output_tokens": None,
        "model": MODEL_ID,
        "output": [message("completed", PART)],
        "parallel_tool_calls": True,
        "temperature": 0.5,
        "top_p": 1.0,
        "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
        "tool_choice": "auto",
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}],
        "top_logprobs": 0,
        "metadata": {"a": "b"},
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 5,
        },
        "background": False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "truncation": "disabled",
        "user": "ada",
    }


async def test_a_text_that_was_cut_off_is_incomplete():
    script = [TextDelta("Hello"), end(FinishReason.LENGTH)]
    body = plain((await post(ScriptedService(script), RESPONSES)).json)
    assert (body["status"], body["completed_at"]) == ("incomplete", None)
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert body["output"] == [message("incomplete", PART)]
    streamed = events(await post(ScriptedService(script), RESPONSES, stream=True))
    assert streamed[-1]["type"] == "response.incomplete"


async def test_a_stream_of_text():
    script = [TextDelta("Hel"), TextDelta("lo"), end()]
    answer = await post(ScriptedService(script), RESPONSES, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    created, in_progress, *rest, completed = events(answer)
    assert created["type"] == "response.created"
    assert in_progress == {**created, "type": "response.in_progress"}
    assert (created["response"]["status"], created["response"]["output"]) == ("in_progress", [])
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    assert rest == [
        {"type": "response.output_item.added", "output_index": 0, "item": message("in_progress")},
        {"type": "response.content_part.added", **at, "part": {**PART, "text": ""}},
        {"type": "response.output_text.delta", **at, "delta": "Hel", "logprobs": []},
        {"type": "response.output_text.delta", **at, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", **at, "text": "Hello", "logprobs": []},
        {"type": "response.content_part.done", **at, "part": PART},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": message("completed", PART),
        },
    ]
    assert completed["type"] == "response.completed"
    whole = plain((await post(ScriptedService(script), RESPONSES)).json)
    times = ("created_at", "completed_at")
    assert {k: v for k, v in completed["response"].items() if k not in times} == {
        k: v for k, v in whole.items() if k not in times
    }


async def test_a_stream_of_text_and_a_call():
    script = [TextDelta("Hello"), *CALL, end()]
    *_, added, delta, done, item_done, completed = events(
        await post(ScriptedService(script), RESPONSES, stream=True)
    )
    at = {"item_id": "fc_1", "output_index": 1}
    assert [added, delta, done, item_done] == [
        {"type": "response.output_item.added", "output_index": 1, "item": call("in_progress")},
        {"type": "response.function_call_arguments.delta", **at, "delta": '{"a":1}'},
        {
            "type": "response.function_call_arguments.done",
            **at,
            "name": "f",
            "arguments": '{"a":1}',
        },
        {
            "type": "response.output_item.done",
            "output_index": 1,
            "item": call("completed", '{"a":1}'),
        },
    ]
    output = [message("completed", PART), call("completed", '{"a":1}')]
    assert completed["response"]["output"] == output
    assert plain((await post(ScriptedService(script), RESPONSES)).json)["output"] == output


async def test_two_calls_are_two_items():
    script = [*CALL, ToolCallDelta(1, "c2", "f", "{}"), end()]
    output = (await post(ScriptedService(script), RESPONSES)).json["output"]
    assert [(o["call_id"], o["arguments"], o["status"]) for o in output] == [
        ("c1", '{"a":1}', "completed"),
        ("c2", "{}", "completed"),
    ]


async def test_an_empty_text_is_still_a_message():
    body = plain((await post(ScriptedService([end()]), RESPONSES)).json)
    assert body["output"] == [message("completed", {**PART, "text": ""})]


async def test_logprobs_are_in_the_deltas_and_the_part():
    token = logprob("Hello", -0.5, ("Hello", -0.5))
    entry = {"token": "Hello", "logprob": -0.5, "bytes": list(b"Hello")}
    expected = [{**entry, "top_logprobs": [entry]}]
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 1, "stream": True}
    answer = await post(ScriptedService([TextDelta("Hello", (token,)), end()]), RESPONSES, **asked)
    found = {event["type"]: event for event in events(answer)}
    assert found["response.output_text.delta"]["logprobs"] == expected
    assert found["response.output_text.done"]["logprobs"] == expected
    assert found["response.content_part.done"]["part"]["logprobs"] == expected
    assert found["response.completed"]["response"]["top_logprobs"] == 1


@pytest.mark.parametrize("begun", [[TextDelta("Hel")], CALL])
async def test_a_failure_after_the_first_byte_is_response_failed(begun):
    script = [*begun, EngineFailure("step broke")]
    *_, last = events(await post(ScriptedService(script), RESPONSES, stream=True))
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "step broke"}
