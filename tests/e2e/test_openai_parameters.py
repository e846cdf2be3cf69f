"""Every parameter has an effect on the real model: each of these fails if its field is ignored.

That each field reaches the generation at all is shown in `tests/dialects/openai`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.dialects.openai.chat_schemas import ChatBody
from app.dialects.openai.completions_schemas import CompletionBody
from app.dialects.openai.responses.schemas import ResponseBody
from tests.e2e.server import DEFAULT_MODEL, Server

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PROMPT = "The old ferry left the island"
QUESTION, ANSWER = "What is the capital of Japan?", "The capital of Japan is Tokyo."
SAMPLED = {"temperature": 1.5, "seed": 5}
"""So hot that it strays from the greedy text at once."""
TRIED: set[str] = set()
"""Fields that a test below changes."""

# shown by another file's tests: of clients, choices, tools, structured output; or changes nothing
ELSEWHERE = {
    *("model", "prompt", "messages", "input", "instructions", "n", "stream", "stream_options"),
    *("tools", "tool_choice", "parallel_tool_calls", "response_format", "text"),
    *("max_output_tokens", "include", "reasoning", "best_of"),
    "previous_response_id",
    *("user", "store", "metadata", "prompt_cache_key", "safety_identifier"),
    *("structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
    *("reasoning_effort", "thinking_token_budget", "enable_thinking", "include_reasoning"),
    *("include_stop_str_in_output", "continue_final_message", "add_generation_prompt"),
    *("json_schema", "regex", "ebnf", "grammar", "chat_template_kwargs", "repeat_penalty"),
    *("bad_words", "allowed_token_ids", "skip_special_tokens", "truncate_prompt_tokens"),
    *("timings_per_token", "return_progress"),
    *("prompt_logprobs", "return_token_ids", "return_tokens_as_token_ids", "logprob_token_ids"),
}


@dataclass
class Asker:
    """Asks with the same request each time, but for the fields given."""

    client: httpx.Client

    def __call__(self, path: str = COMPLETIONS, **fields: Any) -> dict[str, Any]:
        asked = {"model": DEFAULT_MODEL, "max_tokens": 16, "temperature": 0, **fields}
        if path == COMPLETIONS:
            asked = {"prompt": PROMPT, **asked}
        else:
            asked = {"messages": [{"role": "user", "content": QUESTION}], **asked}
        answer = self.client.post(path, json=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def text(self, path: str = COMPLETIONS, **fields: Any) -> str:
        [choice] = self(path, **fields)["choices"]
        return choice["text"] if path == COMPLETIONS else choice["message"]["content"]

    def tokens(self, text: str) -> list[int]:
        asked = {"model": DEFAULT_MODEL, "prompt": text}
        return self.client.post("/tokenize", json=asked).json()["tokens"]


@pytest.fixture(scope="module")
def ask(server: Server):
    with server.client() as client:
        yield Asker(client)


def shows(*fields: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    TRIED.update(fields)
    return lambda test: test


def test_every_field_is_shown():
    fields = {
        name for body in (ChatBody, CompletionBody, ResponseBody) for name in body.__struct_fields__
    }
    assert fields - ELSEWHERE == TRIED


@shows("temperature", "seed")
def test_temperature_and_seed(ask: Asker):
    greedy = ask.text()
    assert ask.text() == greedy
    texts = [ask.text(temperature=1.5, seed=seed) for seed in (5, 5, 6)]
    assert texts[0] == texts[1]
    assert len({greedy, *texts}) == 3, "an ignored temperature or seed makes two of them equal"
    assert ask.text(temperature=0.01, seed=5) == greedy, "almost no chance is left"


@shows("top_p", "top_k", "min_p")
@pytest.mark.parametrize("narrow", [{"top_p": 0.001}, {"top_p": 0}, {"top_k": 1}, {"min_p": 1}])
def test_what_leaves_one_token_leaves_the_greedy_text(ask: Asker, narrow: dict[str, float]):
    greedy = ask.text()
    assert ask.text(**SAMPLED) != greedy, "it must stray without the field"
    assert ask.text(**SAMPLED, **narrow) == greedy


@shows("logit_bias")
def test_logit_bias_bans_and_forces(ask: Asker):
    assert ask.text(CHAT) == ANSWER
    [tokyo] = ask.tokens(" Tokyo")
    assert " Tokyo" not in ask.text(CHAT, logit_bias={str(tokyo): -100})
    assert ask.text(CHAT, max_tokens=4, logit_bias={str(tokyo): 100}) == " Tokyo" * 4


@shows("presence_penalty", "frequency_penalty", "repetition_penalty")
@pytest.mark.parametrize(
    "penalty", [{"presence_penalty": 2}, {"frequency_penalty": 2}, {"repetition_penalty": 2}]
)
def test_penalties_break_a_repetition(ask: Asker, penalty: dict[str, float]):
    prompt = " ".join(["buffalo"] * 15)
    plain = ask.text(prompt=prompt).count("buffalo")
    assert plain > 10, "it must repeat itself without"
    assert ask.text(prompt=prompt, **penalty).count("buffalo") < plain // 2


def test_presence_counts_once_and_frequency_each_time(ask: Asker):
    """Two tokens, forced by the same bias: the one said is fined so that the other comes."""
    one, other = ask.tokens(" one")[0], ask.tokens(" two")[0]
    forced = {"logit_bias": {str(one): 100, str(other): 98.5}, "max_tokens": 12}
    by_presence = ask.text(**forced, presence_penalty=2).split()
    by_frequency = ask.text(**forced, frequency_penalty=2).split()
    assert set(by_presence) | set(by_frequency) <= {"one", "two"}
    assert abs(by_frequency.count("one") - by_frequency.count("two")) < abs(
        by_presence.count("one") - by_presence.count("two")
    ), (by_presence, by_frequency)


@shows("max_tokens", "max_completion_tokens")
def test_max_tokens(ask: Asker):
    for path in (COMPLETIONS, CHAT):
        answer = ask(path, max_tokens=3)
        assert answer["usage"]["completion_tokens"] == 3
        assert answer["choices"][0]["finish_reason"] == "length"
    answer = ask(CHAT, max_tokens=None, max_completion_tokens=3)
    assert answer["usage"]["completion_tokens"] == 3


@shows("min_tokens", "ignore_eos")
def test_the_end_can_be_put_off(ask: Asker):
    plain = ask(CHAT, max_tokens=40)
    assert (plain["choices"][0]["finish_reason"], plain["usage"]["completion_tokens"]) == (
        "stop",
        8,
    )
    put_off = ask(CHAT, max_tokens=40, min_tokens=20)
    assert 20 <= put_off["usage"]["completion_tokens"] <= 40
    endless = ask(CHAT, max_tokens=40, ignore_eos=True)
    assert endless["choices"][0]["finish_reason"] == "length"
    assert endless["usage"]["completion_tokens"] == 40


@shows("stop", "stop_token_ids")
def test_stop(ask: Asker):
    [tokyo] = ask.tokens(" Tokyo")
    for stop in ({"stop": " Tok"}, {"stop": ["nowhere", " Tok"]}, {"stop_token_ids": [tokyo]}):
        [choice] = ask(CHAT, **stop)["choices"]
        assert choice["message"]["content"] == "The capital of Japan is"
        assert choice["finish_reason"] == "stop"


@shows("echo")
def test_echo(ask: Asker):
    assert ask.text(echo=True) == PROMPT + ask.text()


@shows("logprobs", "top_logprobs")
def test_logprobs(ask: Asker):
    [plain] = ask()["choices"]
    assert plain["logprobs"] is None
    [choice] = ask(logprobs=3, max_tokens=4)["choices"]
    assert [len(top) for top in choice["logprobs"]["top_logprobs"]] == [3] * 4
    for many in (0, 5):
        [choice] = ask(CHAT, logprobs=True, top_logprobs=many, max_tokens=4)["choices"]
        tops = [token["top_logprobs"] for token in choice["logprobs"]["content"]]
        assert [len(top) for top in tops] == [many] * 4
    penalised = ask(CHAT, logprobs=True, max_tokens=1, logit_bias={"260": -100})
    [same] = ask(CHAT, logprobs=True, max_tokens=1)["choices"]
    assert penalised["choices"][0]["logprobs"] == same["logprobs"], "the model's own figures"
