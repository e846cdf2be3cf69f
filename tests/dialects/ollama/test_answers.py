"""What is sent and answered, over a service that records requests and plays events."""

import json
from typing import Any

import pytest
from ollama import ChatResponse, GenerateResponse

from app.contract.conversation import ChatMessage, TextPart, Tool, ToolCall
from app.contract.formats import JsonObject, JsonSchema
from app.contract.generation import Reasoning, ReasoningDelta, TextDelta, ToolCallDelta
from app.contract.sampling import FinishReason, SamplingParams
from app.dialects.kit.framing import NDJSON
from app.dialects.kit.passed_over import IGNORED
from app.dialects.locallab import routes as locallab
from app.dialects.ollama import routes as ollama
from app.errors import EngineFailure
from tests.asgi_client import Answer, ask
from tests.dialects.openai.scripted import (
    HI,
    ScriptedGeneration,
    ScriptedModels,
    ScriptedService,
    end,
    logprob,
)
from tests.fakes import MODEL_ID
from tests.hosts import app_over, host_over

CHAT, GENERATE = "/api/chat", "/api/generate"
LEAST: dict[str, dict[str, Any]] = {CHAT: {"messages": HI}, GENERATE: {"prompt": "Hi"}}
TIMINGS = {"total_duration", "load_duration", "prompt_eval_duration", "eval_duration"}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}


async def send(
    service: ScriptedService, path: str = CHAT, *, strict: bool = False, **fields: Any
) -> Answer:
    host = host_over(service, ScriptedModels(), strict_parameters=strict)
    body = {"model": MODEL_ID, **LEAST[path], **fields}
    return await ask(app_over(host, [locallab, ollama]), "POST", path, body)


def lines_of(answer: Answer) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith(NDJSON)
    return [json.loads(line) for line in answer.body.splitlines()]


SCRIPT = [
    TextDelta("Let me "),
    TextDelta("look."),
    ToolCallDelta(0, "call_0", "get_weather", ""),
    ToolCallDelta(0, None, None, '{"city":'),
    ToolCallDelta(0, None, None, ' "Oslo"}'),
    end(tokens=9),
]
CALL = {
    "id": "call_0",
    "function": {"index": 0, "name": "get_weather", "arguments": {"city": "Oslo"}},
}


async def test_a_streamed_chat_is_the_published_one_field_by_field():
    lines = lines_of(await send(ScriptedService(SCRIPT), tools=[WEATHER]))
    for line in lines:
        assert line.keys() <= ChatResponse.model_fields.keys()
        ChatResponse.model_validate(line)
        assert line["model"] == MODEL_ID
        assert line["created_at"].endswith("Z")
    assert [line["message"] for line in lines] == [
        {"role": "assistant", "content": "Let me "},
        {"role": "assistant", "content": "look."},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "assistant", "content": ""},
    ]
    assert [line["done"] for line in lines] == [False, False, False, True]
    last = lines[-1]
    assert (last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("stop", 3, 9)
    assert all(last[name] >= 0 for name in TIMINGS)
    parts = sum(last[name] for name in TIMINGS - {"total_duration"})
    assert 0 <= last["total_duration"] - parts < 10**9
    assert all(TIMINGS.isdisjoint(line) for line in lines[:-1])


async def test_a_whole_chat_and_a_whole_generation():
    answer = await send(ScriptedService(SCRIPT), stream=False, tools=[WEATHER])
    expected = {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]}
    assert answer.json["message"] == expected
    assert (answer.json["done"], answer.json["eval_count"]) == (True, 9)
    answer = await send(ScriptedService(), GENERATE, stream=False)
    assert answer.json.keys() <= GenerateResponse.model_fields.keys()
    assert (answer.json["response"], answer.json["done_reason"]) == ("Hello", "stop")


async def test_a_streamed_generation_ends_with_its_timings():
    lines = lines_of(await send(ScriptedService(), GENERATE))
    for line in lines:
        assert line.keys() <= GenerateResponse.model_fields.keys()
        GenerateResponse.model_validate(line)
        assert (line["model"], line["created_at"][-1]) == (MODEL_ID, "Z")
    told = [(line["response"], line["done"], line.get("done_reason")) for line in lines]
    assert told == [("Hello", False, None), ("", True, "stop")]
    assert (lines[-1]["prompt_eval_count"], lines[-1]["eval_count"]) == (3, 2)
    assert lines[-1].keys() >= TIMINGS
    assert TIMINGS.isdisjoint(lines[0])


async def test_a_call_that_was_cut_off_is_left_out():
    script = [*SCRIPT[:4], end(FinishReason.LENGTH, call_cut=True)]
    for stream in (False, True):
        answer = await send(ScriptedService(script), stream=stream, tools=[WEATHER])
        last = lines_of(answer)[-1] if stream else answer.json
        assert last["done_reason"] == "length"
        assert b"tool_calls" not in answer.body


async def test_options_reach_the_generator():
    service = ScriptedService()
    options = {
        "num_predict": 7,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.8,
        "min_p": 0.1,
        "repeat_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.4,
        "seed": 11,
        "stop": ["END"],
        "num_ctx": 40,
    }
    answer = await send(service, options=options, format="json")
    assert (answer.status, IGNORED in answer.headers) == (200, False)
    [request] = service.requests
    assert request.sampling == SamplingParams(
        repetition_penalty=1.2,
        presence_penalty=0.3,
        frequency_penalty=0.4,
        temperature=0.5,
        top_k=3,
        top_p=0.8,
        min_p=0.1,
        seed=11,
    )
    assert (request.max_tokens, request.stop) == (7, ("END",))
    assert request.response_format == JsonObject()


async def test_defaults_are_ollamas():
    service = ScriptedService()
    await send(service)
    [request] = service.requests
    assert request.sampling == SamplingParams(temperature=0.8, top_k=40, top_p=0.9)
    assert (request.max_tokens, request.response_format, request.top_logprobs) == (None, None, None)


async def test_a_schema_is_a_format():
    service, schema = ScriptedService(), {"type": "object", "properties": {}}
    await send(service, GENERATE, format=schema)
    assert service.requests[0].response_format == JsonSchema(schema)


async def test_logprobs_come_with_their_tokens():
    script = [TextDelta("Hi", (logprob("Hi", -0.5, ("Ho", -1.0)),)), end()]
    service = ScriptedService(script)
    lines = lines_of(await send(service, logprobs=True, top_logprobs=1))
    ho = {"token": "Ho", "logprob": -1.0, "bytes": [72, 111]}
    told = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [ho]}
    assert lines[0]["logprobs"] == [told]
    assert service.requests[0].top_logprobs == 1
    whole = await send(ScriptedService(script), logprobs=True, top_logprobs=1, stream=False)
    assert whole.json["logprobs"] == [told]


async def test_turns_with_calls_and_results():
    service = ScriptedService()
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Oslo? Rome?"},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [
                {"function": {"name": "a", "arguments": {"x": 1}}},
                {"id": "mine", "function": {"name": "b"}},
            ],
        },
        {"role": "tool", "content": "B", "tool_name": "b"},
        {"role": "tool", "content": "A"},
    ]
    await send(service, messages=turns, tools=[WEATHER])
    [request] = service.requests
    assert request.tools == [Tool(name="get_weather", parameters=WEATHER["function"]["parameters"])]
    assert request.messages == [
        ChatMessage.of("system", "Be brief."),
        ChatMessage.of("user", "Oslo? Rome?"),
        ChatMessage(
            "assistant",
            (),
            (ToolCall("call00000", "a", '{"x":1}'), ToolCall("mine", "b", "{}")),
            reasoning="hm",
        ),
        ChatMessage("tool", (TextPart("B"),), tool_call_id="mine"),
        ChatMessage("tool", (TextPart("A"),), tool_call_id="call00000"),
    ]


@pytest.mark.parametrize(
    ("last", "continues"),
    [
        ({"content": "It is"}, True),
        ({"content": "It is "}, True),
        ({"content": "It is", "thinking": "Easy."}, True),
        ({"content": " "}, False),
        ({"content": "", "tool_calls": [{"function": {"name": "a"}}]}, False),
        ({"content": "Look:", "tool_calls": [{"function": {"name": "a"}}]}, False),
    ],
)
async def test_an_answer_goes_on_with_a_last_turn_that_is_text(last, continues):
    service = ScriptedService()
    await send(service, messages=[*HI, {"role": "assistant", **last}])
    await send(service, messages=[*HI, {"role": "assistant", **last}, *HI])
    assert [request.continues for request in service.requests] == [continues, False]


async def test_a_prompt_is_a_conversation_unless_it_is_raw():
    service = ScriptedService()
    await send(service, GENERATE, system="Be brief.")
    await send(service, GENERATE, raw=True)
    chat, raw = service.requests
    assert chat.messages == [ChatMessage.of("system", "Be brief."), ChatMessage.of("user", "Hi")]
    assert (raw.messages, raw.prompt) == ((), "Hi")


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        (GENERATE, {"suffix": "}"}, "suffix is '}', which is not supported here"),
        (GENERATE, {"images": ["aGk="]}, "images is ['aGk='], which is not supported here"),
        (GENERATE, {"context": [1, 2]}, "context is [1, 2], which is not supported here"),
        (GENERATE, {"template": "x"}, "template is 'x', which is not supported here"),
        (CHAT, {"messages": [{"role": "user", "images": ["aGk="]}]}, "messages[0].images is '1 im"),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_name is None"),
        (CHAT, {"options": {"mirostat": 2}}, "options.mirostat is 2, which is not supported"),
        (CHAT, {"options": {"temperature": -1}}, "options.temperature is -1, expected number >= 0"),
        (CHAT, {"format": "xml"}, "format is 'xml', expected"),
        (CHAT, {"keep_alive": "soon"}, "keep_alive is 'soon', expected seconds"),
    ],
)
async def test_what_would_change_the_answer_is_refused_by_name(
    path: str, fields: dict[str, Any], message: str
):
    service = ScriptedService()
    answer = await send(service, path, **fields)
    assert (answer.status, list(answer.json)) == (400, ["error"])
    assert answer.json["error"].startswith(message), answer.json
    assert service.requests == []


async def test_what_changes_no_answer_is_passed_over_and_said():
    fields = {
        "options": {"num_gpu": 1, "num_ctx": 9999, "mirostat": 0, "wings": 2},
        "think": True,
        "truncate": True,
    }
    for stream in (False, True):
        answer = await send(ScriptedService(), **fields, stream=stream)
        assert answer.status == 200
        named = set(answer.headers[IGNORED].split(", "))
        assert named == {"options.num_gpu", "options.num_ctx", "options.wings", "think", "truncate"}
    assert (await send(ScriptedService(), **fields, strict=True)).status == 400


async def test_a_failure_in_a_stream_is_its_last_line():
    service = ScriptedService([TextDelta("Hel"), EngineFailure("it broke")])
    lines = lines_of(await send(service))
    assert lines[-1] == {"error": "it broke"}
    assert not any(line.get("done") for line in lines)


async def test_what_a_model_thinks_is_a_field_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ScriptedGeneration, "thinks", True)
    script = [ReasoningDelta("Hm."), TextDelta("4"), end()]
    answer = await send(ScriptedService(script), think=True)
    assert IGNORED not in answer.headers
    messages = [line["message"] for line in lines_of(answer)]
    assert messages[0] == {"role": "assistant", "content": "", "thinking": "Hm."}
    assert messages[1] == {"role": "assistant", "content": "4"}
    whole = (await send(ScriptedService(script), stream=False)).json
    assert whole["message"] == {"role": "assistant", "content": "4", "thinking": "Hm."}
    whole = (await send(ScriptedService(script), GENERATE, stream=False)).json
    assert (whole["response"], whole["thinking"]) == ("4", "Hm.")


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (None, Reasoning()),
        (True, Reasoning()),
        (False, Reasoning("none")),
        ("low", Reasoning("low")),
    ],
)
async def test_how_much_is_thought(think: bool | str | None, expected: Reasoning):
    service = ScriptedService()
    await send(service, think=think)
    assert service.requests[0].reasoning == expected
