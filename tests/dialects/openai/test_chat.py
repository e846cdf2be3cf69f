"""Whole answers and streams of `POST /v1/chat/completions`, compared as a whole."""

import asyncio
import json
import math
from typing import Any

import pytest

from app.contract.generation import Finished, TextDelta, ToolCallDelta
from app.contract.sampling import FinishReason
from app.errors import EngineFailure
from tests.asgi_client import Answer, ask
from tests.dialects.openai.scripted import (
    CHAT,
    COMPLETIONS,
    FINGERPRINT,
    NEEDED,
    RESPONSES,
    ScriptedService,
    app_for,
    end,
    logprob,
    post,
)
from tests.dialects.readers import read_events
from tests.fakes import MODEL_ID, until

CALLS = [
    ToolCallDelta(0, "c1", "look_up", ""),
    ToolCallDelta(0, None, None, '{"a":'),
    ToolCallDelta(0, None, None, "1}"),
    ToolCallDelta(1, "c2", "look_up", "{}"),
]
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "total_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


def transcript(answer: Answer) -> list[Any]:
    """The events of a stream, less what all chunks share, which is checked."""
    *events, last = read_events(answer.body)
    assert last == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert {c.pop("system_fingerprint") for c in chunks} == {FINGERPRINT}
    heads = {(c.pop("id"), c.pop("object"), c.pop("created"), c.pop("model")) for c in chunks}
    [(chunk_id, kind, _, model_id)] = heads
    assert (chunk_id[:9], kind, model_id) == ("chatcmpl-", "chat.completion.chunk", MODEL_ID)
    return chunks


def chunk(
    index: int, delta: dict, reason: str | None = None, logprobs: dict | None = None, **more: object
) -> dict:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    return {"choices": [choice], **more}


def role(content: str | None = "") -> dict:
    return {"role": "assistant", "content": content, "refusal": None}


async def test_a_whole_answer():
    answer = await post(ScriptedService(), CHAT)
    body = answer.json
    assert answer.status == 200
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "object": "chat.completion",
        "model": MODEL_ID,
        "system_fingerprint": FINGERPRINT,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


async def test_the_prompt_of_several_choices_counts_once():
    service = ScriptedService(
        [TextDelta("one"), end()], [TextDelta("two"), end(FinishReason.LENGTH, tokens=5, cached=3)]
    )
    body = (await post(service, CHAT, n=2)).json
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["one", "two"]
    assert [choice["finish_reason"] for choice in body["choices"]] == ["stop", "length"]
    assert body["usage"] == USAGE | {"completion_tokens": 7, "total_tokens": 10}


async def test_tool_calls_whole():
    body = (await post(ScriptedService([*CALLS, end()]), CHAT)).json
    [choice] = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "look_up", "arguments": '{"a":1}'},
            },
            {"id": "c2", "type": "function", "function": {"name": "look_up", "arguments": "{}"}},
        ],
    }


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (end(FinishReason.LENGTH), "length"),
        (end(FinishReason.STOP, call_cut=True), "stop"),
    ],
)
async def test_calls_that_were_cut_off_are_not_complete(last: Finished, reason: str):
    cut = [*CALLS[:2], last]
    [choice] = (await post(ScriptedService(cut), CHAT)).json["choices"]
    assert choice["finish_reason"] == reason
    chunks = await post(ScriptedService(cut), CHAT, stream=True)
    assert f'"finish_reason":"{reason}"' in chunks.body.decode()


async def test_logprobs_whole_and_streamed():
    tokens = (logprob("He", -0.5, ("He", -0.5), ("She", -math.inf)), logprob("llo", -math.inf))
    script = [TextDelta("He", tokens[:1]), TextDelta("llo", tokens[1:]), end()]
    first = {
        "token": "He",
        "logprob": -0.5,
        "bytes": [72, 101],
        "top_logprobs": [
            {"token": "He", "logprob": -0.5, "bytes": [72, 101]},
            {"token": "She", "logprob": -9999.0, "bytes": [83, 104, 101]},
        ],
    }
    second = {"token": "llo", "logprob": -9999.0, "bytes": [108, 108, 111], "top_logprobs": []}
    [choice] = (await post(ScriptedService(script), CHAT, logprobs=True)).json["choices"]
    assert choice["logprobs"] == {"content": [first, second], "refusal": None}
    streamed = await post(ScriptedService(script), CHAT, logprobs=True, stream=True)
    logprobs = [chunk["choices"][0]["logprobs"] for chunk in transcript(streamed)]
    assert logprobs == [
        None,
        {"content": [first], "refusal": None},
        {"content": [second], "refusal": None},
        None,
    ]


async def test_a_stream():
    service = ScriptedService([TextDelta("Hel"), TextDelta("lo"), end()])
    answer = await post(service, CHAT, stream=True)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert transcript(answer) == [
        chunk(0, role()),
        chunk(0, {"content": "Hel"}),
        chunk(0, {"content": "lo"}),
        chunk(0, {}, "stop"),
    ]
    assert service.generations[0].closed


async def test_a_stream_with_its_usage():
    answer = await post(
        ScriptedService(), CHAT, stream=True, stream_options={"include_usage": True}
    )
    assert transcript(answer) == [
        chunk(0, role(), usage=None),
        chunk(0, {"content": "Hello"}, usage=None),
        chunk(0, {}, "stop", usage=None),
        {"choices": [], "usage": USAGE},
    ]


async def test_a_stream_of_tool_calls():
    answer = await post(ScriptedService([*CALLS, end()]), CHAT, stream=True)

    def call(**fields: object) -> dict:
        return chunk(0, {"tool_calls": [fields]})

    named = {"type": "function", "function": {"name": "look_up", "arguments": ""}}
    last = {"type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    assert transcript(answer) == [
        chunk(0, role(None)),
        call(index=0, id="c1", **named),
        call(index=0, function={"arguments": '{"a":'}),
        call(index=0, function={"arguments": "1}"}),
        call(index=1, id="c2", **last),
        chunk(0, {}, "tool_calls"),
    ]


async def test_choices_interleave_by_index():
    service = ScriptedService([TextDelta("a"), TextDelta("b"), end()], [TextDelta("c"), end()])
    answer = await post(service, CHAT, n=2, stream=True, stream_options={"include_usage": True})
    *chunks, usage = transcript(answer)
    assert usage["usage"]["completion_tokens"] == 4
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["index"] for choice in choices] != sorted(c["index"] for c in choices)
    for index, text in ((0, "ab"), (1, "c")):
        own = [choice for choice in choices if choice["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in own) == text
        reasons = [choice["finish_reason"] for choice in own]
        assert reasons == [*[None] * (len(own) - 1), "stop"]
    assert all(generation.closed for generation in service.generations)


STREAMS = [(CHAT, {}), (CHAT, {"n": 2}), (COMPLETIONS, {}), (RESPONSES, {})]


@pytest.mark.parametrize(("path", "fields"), STREAMS)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_before_the_first_byte_is_a_status(path, fields, stream):
    service = ScriptedService([EngineFailure("step broke")])
    answer = await post(service, path, stream=stream, **fields)
    assert answer.status == 500
    assert answer.json["error"] == {
        "message": "step broke",
        "type": "server_error",
        "param": None,
        "code": "engine_failure",
    }
    assert all(generation.closed for generation in service.generations)


@pytest.mark.parametrize(("path", "fields"), STREAMS[:3])
async def test_a_failure_after_the_first_byte_is_an_error_and_no_end(path, fields):
    scripts = [TextDelta("Hel"), EngineFailure("step broke")], [TextDelta("x"), asyncio.Event()]
    service = ScriptedService(*scripts)
    async with asyncio.timeout(60):
        answer = await post(service, path, stream=True, **fields)
    *_, last = read_events(answer.body)
    assert json.loads(last)["error"]["message"] == "step broke"
    assert b"[DONE]" not in answer.body
    assert all(generation.closed for generation in service.generations)


@pytest.mark.parametrize(("path", "fields"), STREAMS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("script", [[], [TextDelta("first")]])
async def test_a_client_that_goes_ends_every_generation(path, fields, stream, script):
    before = asyncio.all_tasks()
    service, gone = ScriptedService([*script, asyncio.Event(), end()]), asyncio.Event()
    body = {**NEEDED[path], "stream": stream, **fields}
    asking = asyncio.create_task(ask(app_for(service), "POST", path, body, gone=gone))
    async with asyncio.timeout(60):
        await until(lambda: service.generations)
        await until(lambda: all(generation.waits for generation in service.generations))
        gone.set()
        answer = await asking
    assert not answer.complete or answer.status == 499
    assert all(generation.closed for generation in service.generations)
    assert asyncio.all_tasks() == before, "nothing waits for them either"


@pytest.mark.parametrize(("path", "fields"), STREAMS)
async def test_a_client_that_goes_inside_send_ends_every_generation_at_once(path, fields):
    before = asyncio.all_tasks()
    service, gone = ScriptedService([*[TextDelta("piece ")] * 50, end()]), asyncio.Event()

    async def stuck(_: Answer) -> None:
        gone.set()
        await asyncio.Event().wait()

    body = {**NEEDED[path], "stream": True, **fields}
    async with asyncio.timeout(60):
        await ask(app_for(service), "POST", path, body, gone=gone, on_chunk=stuck)
    assert all(generation.closed for generation in service.generations)
    assert asyncio.all_tasks() == before


async def test_no_logprobs_are_told_from_logprobs_of_no_tokens():
    empty = [end(tokens=0)]
    [choice] = (await post(ScriptedService(empty), CHAT, logprobs=True)).json["choices"]
    assert choice["logprobs"] == {"content": [], "refusal": None}
    answer = await post(ScriptedService(empty), CHAT, logprobs=False, top_logprobs=0)
    assert (answer.status, answer.json["choices"][0]["logprobs"]) == (200, None)
    [choice] = (await post(ScriptedService(empty), COMPLETIONS, logprobs=0)).json["choices"]
    assert choice["logprobs"]["tokens"] == []
