"""Every extension of self-hosted servers is served, refused or passed over, each by its name."""

import pytest

from app.dialects.kit.passed_over import IGNORED
from tests.dialects.openai.scripted import CHAT, COMPLETIONS, RESPONSES, ScriptedService, post

EVERYWHERE = {
    "top_k": 5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "repeat_penalty": 1.1,
    "min_tokens": 1,
    "ignore_eos": True,
    "stop_token_ids": [5],
    "include_stop_str_in_output": True,
    "bad_words": ["x"],
    "allowed_token_ids": [5],
    "skip_special_tokens": False,
    "truncate_prompt_tokens": 5,
}
TOLD = {
    "prompt_logprobs": 1,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "timings_per_token": True,
}
OF_CHATS = {
    "chat_template_kwargs": {"a": 1},
    "continue_final_message": True,
    "add_generation_prompt": False,
    "enable_thinking": False,
    "include_reasoning": False,
}
SERVED = {
    CHAT: {**EVERYWHERE, **TOLD, **OF_CHATS, "thinking_token_budget": 5},
    COMPLETIONS: {**EVERYWHERE, **TOLD},
    RESPONSES: {
        **EVERYWHERE,
        "chat_template_kwargs": {"a": 1},
        "thinking_token_budget": 5,
    },
}
PASSED_OVER: dict[str, object] = {
    "spaces_between_special_tokens": False,
    "cache_salt": "x",
    "priority": 1,
}
REFUSED = {path: {"use_beam_search": True, "length_penalty": 2} for path in SERVED}
REFUSED[RESPONSES] |= TOLD


def rows(table: dict[str, dict[str, object]]) -> list[tuple[str, str, object]]:
    return [(path, name, value) for path, fields in table.items() for name, value in fields.items()]


@pytest.mark.parametrize(("path", "name", "value"), rows(SERVED))
async def test_what_is_served_is_taken_without_a_word(path, name, value):
    answer = await post(ScriptedService(), path, **{name: value})
    assert answer.status == 200, answer.body
    assert IGNORED not in answer.headers


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [*rows(dict.fromkeys(SERVED, PASSED_OVER)), (RESPONSES, "return_progress", True)],
)
async def test_what_is_passed_over_is_named(path, name, value):
    answer = await post(ScriptedService(), path, **{name: value})
    assert (answer.status, answer.headers[IGNORED]) == (200, name)


@pytest.mark.parametrize(("path", "name", "value"), rows(REFUSED))
async def test_what_is_not_served_is_refused_as_such(path, name, value):
    answer = await post(ScriptedService(), path, **{name: value})
    assert answer.status == 400
    error = answer.json["error"]
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")


def test_each_is_in_one_table():
    for path, served in SERVED.items():
        assert not served.keys() & REFUSED[path].keys()
        assert {*EVERYWHERE, *TOLD} <= served.keys() | REFUSED[path].keys()
