"""What is refused, each by the field's own path."""

import pytest

from app.dialects.openai.chat_schemas import CHAT_RULES
from app.dialects.openai.completions_schemas import COMPLETIONS_RULES
from app.dialects.openai.responses.schemas import RESPONSES_RULES
from tests.dialects.openai.scripted import (
    CHAT,
    COMPLETIONS,
    NEEDED,
    RESPONSES,
    ScriptedService,
    post,
)

FLAT = {"type": "function", "name": "look_up"}
NESTED = {"type": "function", "function": {"name": "look_up"}}
NAMED = {"name": "thing", "schema": {}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
AUDIO = {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}
REFUSED = [
    *((CHAT, name, {"x": 1}, "unsupported_parameter") for name in CHAT_RULES.unserved),
    *((COMPLETIONS, name, "x", "unsupported_parameter") for name in COMPLETIONS_RULES.unserved),
    *((RESPONSES, name, {"x": 1}, "unsupported_parameter") for name in RESPONSES_RULES.unserved),
    *((path, "nonsense", 1, "unknown_parameter") for path in NEEDED),
    *((path, "temperature", 2.1, "invalid_value") for path in NEEDED),
    *((path, "top_p", -0.1, "invalid_value") for path in NEEDED),
    *((path, "stream", "yes", "invalid_value") for path in NEEDED),
    *((path, "model", "", "invalid_value") for path in NEEDED),
    *(
        (path, name, value, "invalid_value")
        for path in (CHAT, COMPLETIONS)
        for name, value in (
            ("presence_penalty", -2.1),
            ("frequency_penalty", 2.1),
            ("logit_bias", {"a": 1}),
            ("logit_bias", {"-1": 1}),
            ("n", 0),
            ("n", 129),
            ("seed", 1.5),
            ("stop", ""),
            ("stop", ["x"] * 17),
            ("stop_token_ids", [-1]),
            ("min_p", 1.1),
            ("top_k", -2),
            ("repetition_penalty", 0),
            ("min_tokens", -1),
            ("ignore_eos", 1),
            ("user", 1),
            ("bad_words", [""]),
            ("bad_words", ["x" * 129]),
            ("bad_words", ["x"] * 513),
            ("allowed_token_ids", []),
            ("allowed_token_ids", [-1]),
            ("allowed_token_ids", [1] * 16_385),
            ("skip_special_tokens", 0),
            ("truncate_prompt_tokens", 0),
            ("truncate_prompt_tokens", -2),
            ("prompt_logprobs", -1),
            ("prompt_logprobs", 21),
            ("logprob_token_ids", [1]),
            ("logprob_token_ids", [-1]),
            ("logprob_token_ids", [1] * 129),
        )
    ),
    (CHAT, "modalities", ["text", "audio"], "unsupported_parameter"),
    (CHAT, "messages", [], "invalid_value"),
    (CHAT, "max_tokens", 0, "invalid_value"),
    (CHAT, "max_completion_tokens", 0, "invalid_value"),
    (CHAT, "top_logprobs", 1, "invalid_value"),
    (CHAT, "top_logprobs", 21, "invalid_value"),
    (CHAT, "tool_choice", "required", "invalid_value"),
    (CHAT, "tool_choice", "any", "invalid_value"),
    (CHAT, "parallel_tool_calls", 1, "invalid_value"),
    (COMPLETIONS, "best_of", 2, "unsupported_parameter"),
    (COMPLETIONS, "max_tokens", 0, "invalid_value"),
    (COMPLETIONS, "logprobs", 6, "invalid_value"),
    (COMPLETIONS, "prompt", [], "invalid_value"),
    (COMPLETIONS, "prompt", ["a", 1], "invalid_value"),
    (COMPLETIONS, "echo", 1, "invalid_value"),
    (RESPONSES, "previous_response_id", "resp_1", "previous_response_not_found"),
    (RESPONSES, "background", True, "unsupported_parameter"),
    (RESPONSES, "top_logprobs", 1, "invalid_value"),
    (RESPONSES, "max_output_tokens", 0, "invalid_value"),
    (RESPONSES, "tool_choice", "required", "invalid_value"),
    (RESPONSES, "input", [], "invalid_value"),
]
INSIDE = [
    (CHAT, {"guided_json": {}, "guided_regex": "a"}, "guided_regex"),
    (CHAT, {"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
    (CHAT, {"chat_template_kwargs": {"messages": "x"}}, "chat_template_kwargs.messages"),
    (CHAT, {"chat_template_kwargs": {"self": 1}}, "chat_template_kwargs.self"),
    (CHAT, {"guided_json": '{"a": [' + " " * 262_144 + "]}"}, "guided_json"),
    (CHAT, {"messages": [{"role": "", "content": "x"}]}, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user\nx", "content": "x"}]}, "messages[0].role"),
    (RESPONSES, {"input": [{"role": "a b", "content": "x"}]}, "input[0].role"),
    (CHAT, {"typical_p": 0.5}, "typical_p"),
    (
        CHAT,
        {
            "tools": [NESTED],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"tools": [{"type": "function", "function": {"name": "x"}}]},
            },
        },
        "tool_choice.allowed_tools.tools[0]",
    ),
    (CHAT, {"tools": [{"type": "custom"}], "tool_choice": "required"}, "tool_choice"),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
    (RESPONSES, {"input": [{"type": "web_search_call"}]}, "input[0].type"),
    (CHAT, {"messages": [IMAGE]}, "messages[0].content[0].type"),
    (CHAT, {"messages": [AUDIO]}, "messages[0].content[0].type"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": "x", "tool_call_id": "c"}]},
        "messages[0].tool_call_id",
    ),
    (
        CHAT,
        {"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]},
        "messages[0].tool_calls",
    ),
    (CHAT, {"messages": [{"role": "user", "content": "x", "audio": {}}]}, "messages[0].audio"),
    (CHAT, {"messages": [{"role": "assistant", "function_call": {}}]}, "messages[0].function_call"),
    (CHAT, {"logit_bias": {"1": 101}}, "logit_bias"),
    (CHAT, {"stop": ["x", ""]}, "stop[1]"),
    (
        CHAT,
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "tools[0].function.name",
    ),
    (CHAT, {"tools": [NESTED, NESTED]}, "tools[1].function.name"),
    (
        CHAT,
        {"tools": [NESTED], "tool_choice": {"type": "function", "function": {"name": "x"}}},
        "tool_choice.function.name",
    ),
    (CHAT, {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        CHAT,
        {"response_format": {"type": "text", "json_schema": NAMED}},
        "response_format.json_schema",
    ),
    (CHAT, {"response_format": {"type": "grammar"}}, "response_format.type"),
    (CHAT, {"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
    (CHAT, {"n": 5}, "n"),
    (COMPLETIONS, {"prompt": ["a"] * 2048, "n": 2}, "n"),
    (COMPLETIONS, {"prompt": [[1, -1]]}, "prompt[0][1]"),
    (RESPONSES, {"tools": [FLAT, FLAT]}, "tools[1].name"),
    (
        RESPONSES,
        {"tools": [FLAT], "tool_choice": {"type": "function", "name": "x"}},
        "tool_choice.name",
    ),
    (RESPONSES, {"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    (RESPONSES, {"input": [{"content": "x"}]}, "input[0].role"),
    (RESPONSES, {"input": [{"role": "user"}]}, "input[0].content"),
    (
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        "input[0].content[0].type",
    ),
    (RESPONSES, {"input": [{"type": "function_call", "call_id": "c"}]}, "input[0].name"),
    (RESPONSES, {"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
]


@pytest.mark.parametrize(("path", "name", "value", "code"), REFUSED)
async def test_a_field_that_is_wrong_is_refused_by_its_name(path, name, value, code):
    service = ScriptedService()
    answer = await post(service, path, **{name: value})
    assert answer.status == 400, answer.body
    error = answer.json["error"]
    assert error["param"].split("[")[0] == name
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert name in error["message"]
    assert service.requests == []


@pytest.mark.parametrize(("path", "fields", "param"), INSIDE)
async def test_a_wrong_field_inside_is_refused_by_its_path(path, fields, param):
    service = ScriptedService()
    answer = await post(service, path, **fields)
    assert answer.status == 400, answer.body
    assert answer.json["error"]["param"] == param, answer.json
    assert service.requests == []


@pytest.mark.parametrize("path", NEEDED)
async def test_what_is_needed_is_named(path):
    for name in NEEDED[path].keys() - {"model"}:
        answer = await post(ScriptedService(), path, **{name: None})
        assert (answer.status, answer.json["error"]["param"]) == (400, name)


@pytest.mark.parametrize("path", NEEDED)
async def test_an_unknown_model_is_404(path):
    answer = await post(ScriptedService(), path, model="no/such")
    assert answer.status == 404
    assert answer.json["error"] == {
        "message": "model 'no/such' is not on this server",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


async def test_a_prompt_longer_than_the_context_is_known_by_its_code_and_words():
    answer = await post(ScriptedService(), COMPLETIONS, prompt="x" * 50)
    assert answer.status == 400
    assert answer.json["error"]["code"] == "context_length_exceeded"
    assert answer.json["error"]["message"].startswith("This model's maximum context length is 40 ")
