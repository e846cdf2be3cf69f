"""Every field reaches the generation."""

import json

import pytest

from app.contract.conversation import ChatMessage, TextPart, Tool, ToolCall
from app.contract.formats import Following, JsonObject, JsonSchema, Matching, OneOf
from app.contract.generation import GenerationRequest, Reasoning, ToolChoice
from app.contract.sampling import SamplingDefaults, SamplingParams
from app.dialects.openai.chat_schemas import CHAT_RULES, ChatBody
from app.dialects.openai.completions_schemas import COMPLETIONS_RULES, CompletionBody
from app.dialects.openai.responses.schemas import RESPONSES_RULES, ResponseBody
from tests.dialects.openai.scripted import (
    CHAT,
    COMPLETIONS,
    NEEDED,
    RESPONSES,
    ScriptedService,
    post,
)

LEFT_OPEN = frozenset(SamplingDefaults.__struct_fields__)
SAID = {
    **{name: name for name in LEFT_OPEN},
    "repeat_penalty": "repetition_penalty",
}
"""Fields of a body that a model's makers may decide, and what of the sampling they say."""
USER = ChatMessage.of("user", "Hi")
DEFAULTS = {
    CHAT: GenerationRequest(
        messages=[USER], sampling=SamplingParams(), left_open=LEFT_OPEN, tools=[]
    ),
    COMPLETIONS: GenerationRequest(
        prompt="Hi", max_tokens=16, sampling=SamplingParams(), left_open=LEFT_OPEN
    ),
    RESPONSES: GenerationRequest(
        messages=[USER], sampling=SamplingParams(), left_open=LEFT_OPEN, tools=[]
    ),
}
SCHEMA = {"type": "object", "properties": {"a": {"const": None}}}
NAMED = {"name": "thing", "schema": SCHEMA, "strict": True}
FUNCTION = {"name": "look_up", "description": "Find", "parameters": SCHEMA}
FLAT = {"type": "function", **FUNCTION}
NESTED = {"type": "function", "function": FUNCTION}
TOOLS = {CHAT: [NESTED], RESPONSES: [FLAT]}
LOOK_UP = Tool(name="look_up", description="Find", parameters=SCHEMA)

# fields of a body → what of the request they change; `sampling` alone is changed in part
SAMPLING = [
    ({"temperature": 0.5}, {"temperature": 0.5}),
    ({"temperature": 0}, {"temperature": 0.0}),
    ({"top_p": 0.5}, {"top_p": 0.5}),
    ({"top_p": 0}, {"temperature": 0.0}),
    ({"presence_penalty": -2}, {"presence_penalty": -2.0}),
    ({"frequency_penalty": 1.5}, {"frequency_penalty": 1.5}),
    ({"logit_bias": {"7": -100, "50256": 2.5}}, {"logit_bias": {7: -100.0, 50256: 2.5}}),
    ({"seed": 7}, {"seed": 7}),
    ({"seed": -1}, {"seed": 2**64 - 1}),
    ({"top_k": 3}, {"top_k": 3}),
    ({"top_k": -1}, {}),
    ({"min_p": 0.1}, {"min_p": 0.1}),
    ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
    ({"repeat_penalty": 1.2}, {"repetition_penalty": 1.2}),
]
ENDING = [
    ({"stop": "END"}, {"stop": ("END",)}),
    ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
    ({"stop_token_ids": [1, 2]}, {"stop_token_ids": (1, 2)}),
    ({"include_stop_str_in_output": True}, {"include_stop": True}),
    ({"min_tokens": 3}, {"min_tokens": 3}),
    ({"ignore_eos": True}, {"ignore_eos": True}),
    ({"logprob_token_ids": []}, {}),
    ({"bad_words": ["a", " b"]}, {"bad_words": ("a", " b")}),
    ({"allowed_token_ids": [3, 4]}, {"allowed_ids": (3, 4)}),
    ({"skip_special_tokens": False}, {"skip_special": False}),
    ({"truncate_prompt_tokens": 5}, {"truncate_prompt": 5}),
    ({"truncate_prompt_tokens": -1}, {"truncate_prompt": -1}),
    ({"spaces_between_special_tokens": True}, {}),
]
STRUCTURED = [
    ({"type": "text"}, None, {}),
    ({"type": "json_object"}, None, {"response_format": JsonObject()}),
    ({"type": "json_schema"}, NAMED, {"response_format": JsonSchema(SCHEMA)}),
]
SHARED = [
    *ENDING,
    ({"user": "ada"}, {}),
    ({"stream": False}, {}),
    ({"prompt_logprobs": 20}, {"prompt_logprobs": 20}),
    ({"timings_per_token": True}, {}),
    ({"return_progress": True}, {}),
    ({"return_progress": True, "stream": True}, {"progress": True}),
    ({"return_token_ids": True, "return_tokens_as_token_ids": True}, {}),
    *(
        ({field: value}, {"response_format": wanted, "format_field": field})
        for field, value, wanted in (
            ("guided_json", SCHEMA, JsonSchema(SCHEMA)),
            ("json_schema", json.dumps(SCHEMA), JsonSchema(SCHEMA)),
            ("guided_regex", "a+", Matching("a+")),
            ("regex", "a+", Matching("a+")),
            ("guided_choice", ["a", "b"], OneOf(("a", "b"))),
            ("guided_grammar", 'start: "a"', Following('start: "a"')),
            ("ebnf", 'root ::= "a"', Following('root ::= "a"')),
            ("grammar", 'root ::= "a"', Following('root ::= "a"')),
        )
    ),
    *(
        (
            {"structured_outputs": {field: value}},
            {"response_format": wanted, "format_field": f"structured_outputs.{field}"},
        )
        for field, value, wanted in (
            ("json", SCHEMA, JsonSchema(SCHEMA)),
            ("json_object", True, JsonObject()),
            ("regex", "a+", Matching("a+")),
            ("choice", ["a", "b"], OneOf(("a", "b"))),
            ("grammar", 'start: "a"', Following('start: "a"')),
        )
    ),
    *(
        ({"response_format": {**kind, **({"json_schema": named} if named else {})}}, changed)
        for kind, named, changed in STRUCTURED
    ),
]
TABLE = {
    CHAT: [
        *SHARED,
        (
            {"messages": [{"role": "user", "content": "Yo"}]},
            {"messages": [ChatMessage.of("user", "Yo")]},
        ),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 5}, {"max_tokens": 5}),
        ({"logprobs": True}, {"top_logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 20}, {"top_logprobs": 20}),
        (
            {"logprobs": True, "logprob_token_ids": [3, 4]},
            {"top_logprobs": 0, "logprob_ids": (3, 4)},
        ),
        ({"tools": [NESTED]}, {"tools": [LOOK_UP]}),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        ({"chat_template_kwargs": {"a": True}}, {"template_options": {"a": True}}),
        ({"store": True, "metadata": {"a": "b"}}, {}),
        ({"prompt_cache_key": "a", "safety_identifier": "b"}, {}),
        ({"service_tier": "auto", "modalities": ["text"], "verbosity": "medium"}, {}),
        ({"reasoning_effort": "none"}, {"reasoning": Reasoning("none")}),
        ({"enable_thinking": False}, {"reasoning": Reasoning("none")}),
        ({"thinking_token_budget": 7}, {"reasoning": Reasoning(budget=7)}),
        ({"include_reasoning": False}, {}),
        ({"continue_final_message": True}, {"continues": True, "opens_turn": False}),
        (
            {"continue_final_message": True, "add_generation_prompt": False},
            {"continues": True, "opens_turn": False},
        ),
        ({"add_generation_prompt": False}, {"opens_turn": False}),
    ],
    COMPLETIONS: [
        *SHARED,
        ({"prompt": "Yo"}, {"prompt": "Yo"}),
        ({"prompt": ["Yo"]}, {"prompt": "Yo"}),
        ({"prompt": [5, 6]}, {"prompt": None, "prompt_ids": [5, 6]}),
        ({"prompt": [[5, 6]]}, {"prompt": None, "prompt_ids": [5, 6]}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 0, "echo": True}, {"max_tokens": 0}),
        ({"logprobs": 5}, {"top_logprobs": 5}),
        ({"logprobs": 0, "echo": True}, {"top_logprobs": 0, "prompt_logprobs": 0}),
        (
            {"logprobs": 3, "echo": True, "prompt_logprobs": 1},
            {"top_logprobs": 3, "prompt_logprobs": 3},
        ),
        ({"max_tokens": 0, "prompt_logprobs": 1}, {"max_tokens": 0, "prompt_logprobs": 1}),
        ({"logprobs": 0, "logprob_token_ids": [3]}, {"top_logprobs": 0, "logprob_ids": (3,)}),
        ({"best_of": 1, "suffix": ""}, {}),
    ],
    RESPONSES: [
        *ENDING,
        ({"chat_template_kwargs": {"a": True}}, {"template_options": {"a": True}}),
        ({"input": "Yo"}, {"messages": [ChatMessage.of("user", "Yo")]}),
        (
            {"instructions": "Be brief."},
            {"messages": [ChatMessage.of("system", "Be brief."), USER]},
        ),
        ({"max_output_tokens": 5}, {"max_tokens": 5}),
        ({"include": ["message.output_text.logprobs"]}, {"top_logprobs": 0}),
        (
            {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
            {"top_logprobs": 3},
        ),
        ({"tools": [FLAT]}, {"tools": [Tool(**FUNCTION, strict=True)]}),
        ({"tools": [{**FLAT, "strict": False}]}, {"tools": [LOOK_UP]}),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        *(
            ({"text": {"format": {**kind, **(named or {})}}}, changed)
            for kind, named, changed in STRUCTURED
        ),
        ({"store": True, "metadata": {"a": "b"}, "user": "ada"}, {}),
        ({"prompt_cache_key": "a", "safety_identifier": "b"}, {}),
        ({"service_tier": "auto", "truncation": "disabled", "background": False}, {}),
        ({"reasoning": {}, "stream": False}, {}),
        ({"reasoning": {"effort": "low"}}, {"reasoning": Reasoning("low")}),
        ({"thinking_token_budget": 7}, {"reasoning": Reasoning(budget=7)}),
        ({"reasoning": {"effort": None, "summary": None}, "text": {"verbosity": "medium"}}, {}),
    ],
}
CASES = [
    *((path, fields, changed) for path, rows in TABLE.items() for fields, changed in rows),
    *(
        (path, fields, {"sampling": SamplingParams(**changed)})
        for path in TABLE
        for fields, changed in SAMPLING
    ),
]
# of more effect than one request shows: tests below, or of streams and answers
ELSEWHERE = {"model", "n", "stream_options", "tool_choice", "previous_response_id"}


def changed(request: GenerationRequest, **fields: object) -> GenerationRequest:
    known = {name: getattr(request, name) for name in request.__struct_fields__}
    return GenerationRequest(**{**known, **fields})


@pytest.mark.parametrize(("path", "fields", "expected"), CASES)
async def test_a_field_reaches_the_generation(path, fields, expected):
    service = ScriptedService()
    answer = await post(service, path, **fields)
    assert answer.status == 200, answer.body
    said = {SAID[name] for name in fields if name in SAID}
    if fields.get("top_p") == 0:
        said.add("temperature")  # both are greedy
    wanted = changed(DEFAULTS[path], **expected, left_open=LEFT_OPEN - said)
    assert service.requests == [wanted]


@pytest.mark.parametrize(
    ("path", "kind"), [(CHAT, ChatBody), (COMPLETIONS, CompletionBody), (RESPONSES, ResponseBody)]
)
async def test_the_table_above_has_every_field_and_null_is_its_default(path, kind):
    tried = {name for case_path, fields, _ in CASES if case_path == path for name in fields}
    fields = set(kind.__struct_fields__)
    rules = {CHAT: CHAT_RULES, COMPLETIONS: COMPLETIONS_RULES, RESPONSES: RESPONSES_RULES}[path]
    assert fields - ELSEWHERE <= tried, "a field has no test"
    service = ScriptedService()
    optional = (fields | set(rules.unserved) | set(rules.ignored)) - set(NEEDED[path])
    answer = await post(service, path, **dict.fromkeys(optional))
    assert answer.status == 200, answer.body
    assert service.requests == [DEFAULTS[path]]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_n_choices_differ_in_their_seeds_alone(path):
    service = ScriptedService()
    assert (await post(service, path, n=3, seed=2**63 - 1)).status == 200
    assert [request.sampling.seed for request in service.requests] == [2**63 - 1, 2**63, 2**63 + 1]
    unseeded = ScriptedService()
    await post(unseeded, path, n=3)
    assert unseeded.requests == [DEFAULTS[path]] * 3, "the engine draws a seed for each"


async def test_prompts_are_prompt_major():
    service = ScriptedService()
    await post(service, COMPLETIONS, prompt=["a", "b"], n=2, seed=5)
    assert [(r.prompt, r.sampling.seed) for r in service.requests] == [
        ("a", 5),
        ("a", 6),
        ("b", 5),
        ("b", 6),
    ]
    service = ScriptedService()
    await post(service, COMPLETIONS, prompt=[[5], [6, 7]])
    assert [request.prompt_ids for request in service.requests] == [[5], [6, 7]]


@pytest.mark.parametrize("path", [CHAT, RESPONSES])
@pytest.mark.parametrize("mode", ["none", "auto", "required"])
async def test_tool_choice_by_mode(path, mode):
    service = ScriptedService()
    await post(service, path, tools=TOOLS[path], tool_choice=mode)
    assert service.requests[0].tool_choice == ToolChoice(mode)


@pytest.mark.parametrize(
    ("path", "choice"),
    [
        (CHAT, {"type": "function", "function": {"name": "look_up"}}),
        (RESPONSES, {"type": "function", "name": "look_up"}),
    ],
)
async def test_tool_choice_by_name(path, choice):
    service = ScriptedService()
    await post(service, path, tools=TOOLS[path], tool_choice=choice)
    assert service.requests[0].tool_choice == ToolChoice("required", "look_up")
    assert not service.requests[0].parallel_tool_calls, "it is called once, as instructor expects"


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@pytest.mark.parametrize(
    ("message", "turn"),
    [
        ({"role": "system", "content": "x"}, ChatMessage.of("system", "x")),
        ({"role": "developer", "content": "x"}, ChatMessage.of("developer", "x")),
        ({"role": "user", "content": "x", "name": "ada"}, ChatMessage.of("user", "x", name="ada")),
        ({"role": "assistant", "content": ""}, ChatMessage.of("assistant", "")),
        (
            {"role": "assistant", "content": None, "refusal": "no"},
            ChatMessage.of("assistant", "no"),
        ),
        (
            {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL]},
            ChatMessage.of("assistant", "", (ToolCall("c1", "f", '{"a":1}'),)),
        ),
        # as the official client and LiteLLM send our answers back
        (
            {"role": "assistant", "content": "x", "parsed": {"a": 1}, "function_call": None},
            ChatMessage.of("assistant", "x"),
        ),
        (
            {"role": "assistant", "content": "x", "provider_specific_fields": {"refusal": None}},
            ChatMessage.of("assistant", "x"),
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        **CALL,
                        "index": 0,
                        "function": {**CALL["function"], "parsed_arguments": {"a": 1}},
                    }
                ],
            },
            ChatMessage.of("assistant", "", (ToolCall("c1", "f", '{"a":1}'),)),
        ),
        (
            {"role": "tool", "content": "7", "tool_call_id": "c1"},
            ChatMessage.of("tool", "7", tool_call_id="c1"),
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": t} for t in "ab"]},
            ChatMessage("user", (TextPart("a"), TextPart("b"))),
        ),
    ],
)
async def test_a_message_becomes_a_turn(message, turn):
    service = ScriptedService()
    answer = await post(service, CHAT, messages=[message])
    assert answer.status == 200, answer.body
    assert service.requests[0].messages == [turn]


async def test_items_of_a_response_become_turns():
    """As clients send them: our own output comes back, ids and all."""
    part = {"type": "output_text", "text": "Let me see.", "annotations": [], "logprobs": []}
    said = {"id": "m1", "type": "message", "role": "assistant", "status": "completed"}
    called = {"type": "function_call", "name": "f", "arguments": "{}", "status": "completed"}
    service = ScriptedService()
    answer = await post(
        service,
        RESPONSES,
        input=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {**said, "content": [part]},
            {**called, "id": "fc1", "call_id": "c1"},
            {**called, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": "7"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "8"}],
            },
        ],
    )
    assert answer.status == 200, answer.body
    assert service.requests[0].messages == [
        ChatMessage.of("developer", "Be brief."),
        USER,
        ChatMessage.of(
            "assistant", "Let me see.", (ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}"))
        ),
        ChatMessage.of("tool", "7", tool_call_id="c1"),
        ChatMessage.of("tool", "8", tool_call_id="c2"),
    ]


async def test_a_schema_keeps_its_nulls():
    service = ScriptedService()
    await post(service, CHAT, response_format={"type": "json_schema", "json_schema": NAMED})
    assert service.requests[0].response_format.schema["properties"]["a"] == {"const": None}
