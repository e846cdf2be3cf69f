"""Answers and events have the fields that OpenAI's published types have, and no others."""

import json
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from app.contract.generation import TextDelta, ToolCallDelta
from tests.dialects.openai.scripted import (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    ScriptedService,
    end,
    logprob,
    post,
)
from tests.dialects.readers import read_events

CALLS = [
    ToolCallDelta(0, "call_0", "look_up", ""),
    ToolCallDelta(0, None, None, '{"a":'),
    ToolCallDelta(0, None, None, "1}"),
]
TEXT = [TextDelta("Hel", (logprob("Hel", -0.5, ("Hel", -0.5)),)), TextDelta("lo")]
SCRIPTS = {CHAT: [*TEXT, *CALLS, end()], COMPLETIONS: [*TEXT, end()]}
SCRIPTS[RESPONSES] = SCRIPTS[CHAT]
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"logprobs": True, "top_logprobs": 1},
    COMPLETIONS: {"logprobs": 1},
    RESPONSES: {"include": ["message.output_text.logprobs"], "top_logprobs": 1},
}
WHOLE: dict[str, type[BaseModel]] = {CHAT: ChatCompletion, COMPLETIONS: Completion}
WHOLE[RESPONSES] = Response
PIECE: dict[str, TypeAdapter[Any]] = {
    CHAT: TypeAdapter(ChatCompletionChunk),
    COMPLETIONS: TypeAdapter(Completion),
    RESPONSES: TypeAdapter(ResponseStreamEvent),
}


TOLD_BESIDE = {
    *(".store", ".response.store"),  # OpenAI's answers have it, its package leaves it out
    *(".logprobs.bytes", ".logprobs.top_logprobs.bytes"),  # of deltas; its parts have them
    ".name",  # of response.function_call_arguments.done, in OpenAI's document
}


def unknown(record: object, at: str = "") -> list[str]:
    """Fields that the published types don't have, below a record of theirs too."""
    if isinstance(record, list):
        return [name for item in record for name in unknown(item, at)]
    if not isinstance(record, BaseModel):
        return []
    found = [f"{at}.{name}" for name in record.model_extra or {}]
    for name in type(record).model_fields:
        found += unknown(getattr(record, name), f"{at}.{name}")
    return found


@pytest.mark.parametrize("path", WHOLE)
async def test_a_whole_answer_has_the_published_fields(path: str):
    answer = await post(ScriptedService(SCRIPTS[path]), path, **ASKED[path])
    assert answer.status == 200, answer.body
    assert set(unknown(WHOLE[path].model_validate(answer.json))) <= TOLD_BESIDE


@pytest.mark.parametrize("path", PIECE)
async def test_each_event_of_a_stream_has_the_published_fields(path: str):
    usage = {} if path == RESPONSES else {"stream_options": {"include_usage": True}}
    service = ScriptedService(SCRIPTS[path])
    answer = await post(service, path, stream=True, **ASKED[path], **usage)
    events = [json.loads(data) for data in read_events(answer.body) if data != "[DONE]"]
    assert len(events) > 3, "or there is little to compare"
    for event in events:
        if path == COMPLETIONS:  # OpenAI sends null, and its package has no word for that
            for choice in event["choices"]:
                choice["finish_reason"] = choice["finish_reason"] or "stop"
        assert set(unknown(PIECE[path].validate_python(event))) <= TOLD_BESIDE, event
    if path != RESPONSES:
        assert len({event["id"] for event in events}) == 1
        assert [event["usage"] is None for event in events] == [True] * (len(events) - 1) + [False]
        assert events[-1]["choices"] == []
