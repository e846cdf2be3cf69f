"""Tokens, templates and tokenizers: what is asked of generation, and how it is told."""

import pytest

from app.contract.conversation import ChatMessage, Tool
from app.contract.generation import Reasoning
from app.dialects.kit.passed_over import IGNORED
from tests.asgi_client import ask
from tests.dialects.openai.scripted import HI, ScriptedService, app_for, post
from tests.fakes import MODEL_ID

TOOL = {"type": "function", "function": {"name": "look_up"}}


@pytest.mark.parametrize(
    ("fields", "tokenized"),
    [
        ({"prompt": "Hi"}, ("Hi", MODEL_ID, True)),
        ({"prompt": "Hi", "add_special_tokens": False}, ("Hi", MODEL_ID, False)),
        ({"messages": HI}, ([ChatMessage.of("user", "Hi")], MODEL_ID, False)),
        (
            {"messages": HI, "add_special_tokens": True},
            ([ChatMessage.of("user", "Hi")], MODEL_ID, True),
        ),
    ],
)
async def test_tokenize(fields, tokenized):
    service = ScriptedService()
    answer = await post(service, "/tokenize", model=MODEL_ID, **fields)
    assert answer.json == {"count": 3, "max_model_len": 40, "tokens": [1, 2, 3]}
    assert service.tokenized == [tokenized]
    assert [caller.client for caller in service.callers] == ["address 127.0.0.1"]


@pytest.mark.parametrize("fields", [{}, {"prompt": "Hi", "messages": HI}])
async def test_tokenize_takes_one_of_a_prompt_and_messages(fields):
    answer = await post(ScriptedService(), "/tokenize", model=MODEL_ID, **fields)
    assert (answer.status, answer.json["error"]["param"]) == (400, "prompt")


async def test_tokens_are_told_as_the_vocabulary_writes_them_where_that_is_asked_for():
    answer = await post(ScriptedService(), "/tokenize", prompt="Hi", return_token_strs=True)
    assert answer.json["token_strs"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("fields", "opens_turn", "continues"),
    [
        ({}, True, False),
        ({"add_generation_prompt": True}, True, False),
        ({"add_generation_prompt": False}, False, False),
        ({"continue_final_message": True, "add_generation_prompt": False}, False, True),
    ],
)
async def test_how_a_conversation_ends_when_it_is_tokenized(fields, opens_turn, continues):
    service = ScriptedService()
    answer = await post(service, "/tokenize", messages=HI, **fields)
    assert answer.status == 200, answer.body
    [request] = service.written
    assert (request.opens_turn, request.continues) == (opens_turn, continues)


async def test_a_conversation_is_tokenized_with_its_tools_and_variables():
    service = ScriptedService()
    asked = {"tools": [TOOL, {"type": "web_search"}], "chat_template_kwargs": {"a": 1}}
    answer = await post(service, "/tokenize", messages=HI, **asked)
    assert answer.headers[IGNORED] == "tools[1].type"
    [request] = service.written
    assert request.tools == [Tool(name="look_up")]
    assert request.template_options == {"a": 1}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "Hi", "add_generation_prompt": True}, "add_generation_prompt"),
        ({"prompt": "Hi", "continue_final_message": True}, "continue_final_message"),
        ({"prompt": "Hi", "tools": [TOOL]}, "tools"),
        ({"prompt": "Hi", "chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        (
            {"messages": HI, "chat_template_kwargs": {"tools": 1}},
            "chat_template_kwargs.tools",
        ),
        (
            {"messages": HI, "continue_final_message": True, "add_generation_prompt": True},
            "add_generation_prompt",
        ),
    ],
)
async def test_what_cannot_be_tokenized_is_named(fields, param):
    answer = await post(ScriptedService(), "/tokenize", **fields)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


async def test_detokenize():
    service = ScriptedService()
    answer = await post(service, "/detokenize", model=MODEL_ID, tokens=[72, 105])
    assert (answer.status, answer.json) == (200, {"prompt": "Hi"})
    answer = await post(service, "/detokenize", model="no/such", tokens=[72])
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")


async def test_a_template_is_applied_as_a_chat_would_be_read():
    service = ScriptedService()
    answer = await post(
        service,
        "/apply-template",
        messages=HI,
        tools=[TOOL],
        reasoning_effort="low",
        add_generation_prompt=False,
        cache_prompt=True,
    )
    assert (answer.status, answer.json) == (200, {"prompt": "written out"})
    assert answer.headers[IGNORED] == "cache_prompt"
    [request] = service.written
    assert request.messages == [ChatMessage.of("user", "Hi")]
    assert [tool.name for tool in request.tools] == ["look_up"]
    assert (request.reasoning, request.opens_turn) == (Reasoning("low"), False)
    assert not service.requests, "nothing is generated"
    wrong = await post(service, "/apply-template", messages=[])
    assert (wrong.status, wrong.json["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize("query", ["", f"?model={MODEL_ID}"])
async def test_a_tokenizer_is_described(query):
    answer = await ask(app_for(ScriptedService()), "GET", f"/tokenizer_info{query}")
    assert answer.status == 200, answer.body
    assert answer.json == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "vocab_size": 258,
        "model_max_length": 40,
        "bos_token": None,
        "eos_token": "<s>",
        "chat_template": "{{ x }}",
        "added_tokens_decoder": {
            "1": {
                "content": "<s>",
                "special": True,
                "lstrip": False,
                "rstrip": False,
                "single_word": False,
                "normalized": False,
            }
        },
    }


async def test_an_unknown_model_has_no_tokenizer():
    answer = await ask(app_for(ScriptedService()), "GET", "/tokenizer_info?model=no/such")
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
