"""What a model thinks, in chat completions and in responses, whole and streamed."""

import json

from app.contract.generation import Finished, ReasoningDelta, TextDelta, ToolCallDelta
from app.contract.sampling import FinishReason
from app.contract.usage import Usage
from app.dialects.kit.passed_over import IGNORED
from tests.dialects.openai.scripted import (
    CHAT,
    RESPONSES,
    ScriptedGeneration,
    ScriptedService,
    post,
)
from tests.dialects.readers import read_events

END = Finished(FinishReason.STOP, Usage(3, 9, 1, 5))
SCRIPT = [ReasoningDelta("Let me"), ReasoningDelta(" see."), TextDelta("It is 4."), END]


async def test_chat_tells_it_beside_the_content():
    body = (await post(ScriptedService(SCRIPT), CHAT)).json
    [choice] = body["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "It is 4.",
        "refusal": None,
        "reasoning_content": "Let me see.",
    }
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 5}
    hidden = (await post(ScriptedService(SCRIPT), CHAT, include_reasoning=False)).json
    assert "reasoning_content" not in hidden["choices"][0]["message"]


async def test_chat_streams_it_in_front_of_the_content():
    for shown, deltas in (
        (True, [{"reasoning_content": "Let me"}, {"reasoning_content": " see."}]),
        (False, []),
    ):
        answer = await post(ScriptedService(SCRIPT), CHAT, stream=True, include_reasoning=shown)
        *chunks, _ = read_events(answer.body)
        found = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
        assert found == [
            {"role": "assistant", "content": "", "refusal": None},
            *deltas,
            {"content": "It is 4."},
            {},
        ]


async def test_a_response_has_an_item_of_it_and_its_events():
    script = [*SCRIPT[:3], ToolCallDelta(0, "c", "f", "{}"), END]
    body = (await post(ScriptedService(script), RESPONSES)).json
    thought, message, call = body["output"]
    assert thought.pop("id").startswith("rs_")
    assert thought == {
        "type": "reasoning",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Let me see."}],
        "encrypted_content": None,
    }
    assert (message["type"], call["type"]) == ("message", "function_call")
    assert body["usage"]["output_tokens_details"] == {"reasoning_tokens": 5}
    streamed = await post(ScriptedService(SCRIPT), RESPONSES, stream=True)
    events = [json.loads(event) for event in read_events(streamed.body)]
    assert [event["type"] for event in events][:10] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert all((event["output_index"], event["content_index"]) == (0, 0) for event in events[3:8])
    assert events[6]["text"] == "Let me see."


async def test_thinking_that_is_cut_leaves_an_empty_message():
    cut = [ReasoningDelta("Hm"), Finished(FinishReason.LENGTH, Usage(3, 1, 0, 1))]
    body = (await post(ScriptedService(cut), RESPONSES)).json
    assert [item["type"] for item in body["output"]] == ["reasoning", "message"]
    assert body["status"] == "incomplete"


async def test_an_effort_is_named_where_the_model_does_not_think(monkeypatch):
    for path, fields, name in (
        (CHAT, {"reasoning_effort": "high"}, "reasoning_effort"),
        (RESPONSES, {"reasoning": {"effort": "high"}}, "reasoning.effort"),
    ):
        assert (await post(ScriptedService(), path, **fields)).headers[IGNORED] == name
        monkeypatch.setattr(ScriptedGeneration, "thinks", True)
        assert IGNORED not in (await post(ScriptedService(), path, **fields)).headers
        monkeypatch.undo()


async def test_usage_so_far_is_in_every_chunk_if_asked_for():
    options = {"include_usage": True, "continuous_usage_stats": True}
    for path in (CHAT, "/v1/completions"):
        answer = await post(ScriptedService(), path, stream=True, stream_options=options)
        *chunks, _ = read_events(answer.body)
        usages = [json.loads(chunk)["usage"] for chunk in chunks]
        assert all(usage["prompt_tokens"] == 3 for usage in usages)
        assert len(usages) > 2
