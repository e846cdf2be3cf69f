"""vLLM's extensions of OpenAI's API, each with the effect that it has on the real model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.manifest import folder_name
from app.runtime.decoder import BLOCK_TOKENS
from tests.e2e.server import DEFAULT_MODEL, ROOT, Server, running_server

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
PROMPT = "The old ferry left the island"
MESSAGES = [{"role": "user", "content": "What is the capital of Japan?"}]
ASKED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": MESSAGES, "max_tokens": 16, "temperature": 0},
    COMPLETIONS: {"prompt": PROMPT, "max_tokens": 12, "temperature": 0},
}
RESPONSE = {"input": MESSAGES[0]["content"], "max_output_tokens": 16, "temperature": 0}


class Client:
    """Asks the real model."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def post(self, path: str, **fields: Any) -> dict[str, Any]:
        body = {"model": DEFAULT_MODEL, **ASKED.get(path, {}), **fields}
        answer = self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def chunks(self, path: str, **fields: Any) -> Iterator[dict[str, Any]]:
        body = {"model": DEFAULT_MODEL, "stream": True, **ASKED.get(path, {}), **fields}
        with self.http.stream("POST", path, json=body) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                data = line.removeprefix("data: ")
                if data.startswith("{"):
                    yield json.loads(data)

    def refused(self, path: str, **fields: Any) -> dict[str, Any]:
        body = {"model": DEFAULT_MODEL, **ASKED.get(path, {}), **fields}
        answer = self.http.post(path, json=body)
        assert answer.status_code == 400, answer.text
        return answer.json()["error"]

    def tokens(self, **fields: Any) -> list[int]:
        return self.post("/tokenize", **fields)["tokens"]

    def text(self, ids: list[int]) -> str:
        return self.post("/detokenize", tokens=ids)["prompt"]


@pytest.fixture(scope="module")
def client(server: Server):
    with server.client() as http:
        yield Client(http)


def test_figures_of_a_prompt_are_those_of_its_echo(client: Client):
    [choice] = client.post(COMPLETIONS, echo=True, logprobs=3, prompt_logprobs=3)["choices"]
    ids = client.tokens(prompt=PROMPT)
    first, *figures = choice["prompt_logprobs"]
    assert first is None
    assert len(figures) == len(ids) - 1 > 3
    echoed = choice["logprobs"]
    for place, (own, told) in enumerate(zip(ids[1:], figures, strict=True), start=1):
        mine = told[str(own)]
        assert mine["logprob"] == echoed["token_logprobs"][place]
        assert mine["decoded_token"] == echoed["tokens"][place]
        by_rank = sorted(told.values(), key=lambda one: one["rank"])
        assert [one["logprob"] for one in by_rank] == sorted(
            (one["logprob"] for one in told.values()), reverse=True
        )
        assert [one["rank"] for one in by_rank[:3]] == [1, 2, 3]
    assert any(told[str(own)]["rank"] > 3 for own, told in zip(ids[1:], figures, strict=True))


def test_figures_of_a_conversation_reach_over_its_template(client: Client):
    answer = client.post(CHAT, prompt_logprobs=0, return_token_ids=True)
    ids = client.tokens(messages=MESSAGES)
    assert answer["prompt_token_ids"] == ids
    assert answer["prompt_logprobs"][0] is None
    assert [list(one) for one in answer["prompt_logprobs"][1:]] == [[str(i)] for i in ids[1:]]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_token_ids_spell_the_text(client: Client, path: str):
    answer = client.post(path, return_token_ids=True)
    [choice] = answer["choices"]
    assert len(choice["token_ids"]) == answer["usage"]["completion_tokens"]
    text = choice["text"] if path == COMPLETIONS else choice["message"]["content"]
    spelled = client.text(choice["token_ids"])
    assert spelled == (text if path == COMPLETIONS else f"{text}<|im_end|>")


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("stop", [[], [" is", " left"]])
def test_a_stream_tells_the_same_ids(client: Client, path: str, stop: list[str]):
    [choice] = client.post(path, return_token_ids=True, stop=stop)["choices"]
    streamed: list[int] = []
    prompts = []
    for chunk in client.chunks(path, return_token_ids=True, stop=stop):
        for one in chunk["choices"]:
            streamed += one.get("token_ids", [])
            prompts += [x["prompt_token_ids"] for x in (chunk, one) if "prompt_token_ids" in x]
    assert streamed == choice["token_ids"]
    given = {"messages": MESSAGES} if path == CHAT else {"prompt": PROMPT}
    assert prompts == [client.tokens(**given)]


def test_logprobs_by_token_id(client: Client):
    plain = client.post(CHAT, logprobs=True, top_logprobs=2, return_token_ids=True)
    named = client.post(CHAT, logprobs=True, top_logprobs=2, return_tokens_as_token_ids=True)
    tokens = [one["token"] for one in named["choices"][0]["logprobs"]["content"]]
    ids = plain["choices"][0]["token_ids"]
    assert tokens == [f"token_id:{token_id}" for token_id in ids[: len(tokens)]]
    assert len(tokens) >= len(ids) - 1, "but for the end"


def test_logprobs_of_named_tokens(client: Client):
    named = client.tokens(prompt=" Tokyo") + client.tokens(prompt=" Paris")
    answer = client.post(
        CHAT, logprobs=True, logprob_token_ids=named, return_tokens_as_token_ids=True, max_tokens=4
    )
    for token in answer["choices"][0]["logprobs"]["content"]:
        told = {one["token"]: one["logprob"] for one in token["top_logprobs"]}
        assert list(told) == [f"token_id:{one}" for one in named]
        assert all(logprob < 0 for logprob in told.values())
    with_top = client.post(CHAT, logprobs=True, top_logprobs=5, max_tokens=4)
    likeliest = with_top["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    beside = client.post(CHAT, logprobs=True, top_logprobs=5, max_tokens=4, logprob_token_ids=named)
    tops = beside["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert tops[:5] == likeliest
    assert len(tops) == 7, "neither begins an answer"
    [text] = client.post(COMPLETIONS, logprobs=0, logprob_token_ids=named, max_tokens=1)["choices"]
    [tops] = text["logprobs"]["top_logprobs"]
    assert {" Tokyo", " Paris"} <= tops.keys()


def test_a_token_beyond_the_vocabulary_is_refused(client: Client):
    error = client.refused(CHAT, logprobs=True, logprob_token_ids=[10**9])
    assert error["param"] == "logprob_token_ids"
    assert "1000000000" in error["message"]
    assert "vocabulary" in error["message"]


def answer_of(body: dict[str, Any]) -> str:
    [choice] = body["choices"]
    return choice["text"] if "text" in choice else choice["message"]["content"]


@pytest.mark.parametrize("words", [["Tokyo"], ["nowhere", "capital of"], ["The capital of Japan"]])
def test_bad_words_are_not_said(client: Client, words: list[str]):
    plain = answer_of(client.post(CHAT))
    assert words[-1] in plain, "it must say it without"
    held = answer_of(client.post(CHAT, bad_words=words))
    assert words[-1] not in held
    [answer] = client.post("/v1/responses", **RESPONSE, bad_words=words)["output"]
    assert answer["content"][0]["text"] == held


def test_only_allowed_tokens_come(client: Client):
    named = client.tokens(prompt=" one two three")
    answer = client.post(COMPLETIONS, allowed_token_ids=named, return_token_ids=True)
    [choice] = answer["choices"]
    assert set(choice["token_ids"]) <= set(named)
    assert choice["finish_reason"] == "length"
    said = client.post("/v1/responses", **RESPONSE, allowed_token_ids=named)["output"][0]
    assert set(said["content"][0]["text"].split()) <= {"one", "two", "three"}


def test_special_tokens_are_text_where_they_are_wanted(client: Client):
    [opening] = client.tokens(prompt="<|im_start|>", add_special_tokens=False)
    forced = {"logit_bias": {str(opening): 100}, "max_tokens": 3}
    for path in (CHAT, COMPLETIONS):
        assert answer_of(client.post(path, **forced)) == ""
        shown = answer_of(client.post(path, **forced, skip_special_tokens=False))
        assert shown == "<|im_start|>" * 3
    said = client.post(
        "/v1/responses",
        **{**RESPONSE, "max_output_tokens": 3},
        logit_bias=forced["logit_bias"],
        skip_special_tokens=False,
    )["output"][0]
    assert said["content"][0]["text"] == "<|im_start|>" * 3


def test_a_truncated_prompt_is_its_end(client: Client):
    ids = client.tokens(prompt=PROMPT)
    cut = client.post(COMPLETIONS, truncate_prompt_tokens=3, echo=True, return_token_ids=True)
    same = client.post(COMPLETIONS, prompt=ids[-3:], echo=True)
    assert cut["choices"][0]["prompt_token_ids"] == ids[-3:]
    assert answer_of(cut) == answer_of(same)
    assert answer_of(cut).startswith(client.text(ids[-3:]))
    assert cut["usage"]["prompt_tokens"] == 3


def test_a_prompt_is_truncated_to_what_fits(tmp_path: Path):
    with running_server(tmp_path, slots=1, context_length=256) as server, server.client() as http:
        client = Client(http)
        long = {"messages": [{"role": "user", "content": "word " * 1_000}]}
        error = client.refused(CHAT, **long)
        assert error["code"] == "context_length_exceeded"
        fits = client.post(CHAT, **long, truncate_prompt_tokens=-1, max_tokens=5)
        assert fits["usage"]["completion_tokens"] == 5
        assert fits["usage"]["total_tokens"] == max_model_len(client) == 256


def max_model_len(client: Client) -> int:
    return client.post("/tokenize", prompt="x")["max_model_len"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"bad_words": ["x" * 129]}, "bad_words[0]"),
        ({"bad_words": ["fine", "乾" * 100]}, "bad_words[1]"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [10**8]}, "allowed_token_ids"),
        ({"allowed_token_ids": [5], "guided_regex": "a"}, "allowed_token_ids"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
    ],
)
def test_what_cannot_be_ruled_out_is_named(client: Client, fields: dict[str, Any], param: str):
    assert client.refused(CHAT, **fields)["param"] == param


def test_templates_and_tokens_agree(client: Client):
    """Against Transformers' own tokenizer, made of the model's files."""
    transformers = pytest.importorskip("transformers", reason="the export extra brings it")
    info = client.http.get("/tokenizer_info").json()
    folder = ROOT / "models" / folder_name(DEFAULT_MODEL)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        chat_template=info["chat_template"],
        bos_token=info["bos_token"],
        eos_token=info["eos_token"],
    )
    assert info["vocab_size"] == len(theirs)
    said = [*MESSAGES, {"role": "assistant", "content": "It is"}]
    for given, asked in (
        ({"add_generation_prompt": True}, {}),
        ({"add_generation_prompt": False}, {"add_generation_prompt": False}),
        ({"continue_final_message": True}, {"continue_final_message": True}),
    ):
        text = theirs.apply_chat_template(said, tokenize=False, **given)
        assert client.post("/apply-template", messages=said, **asked)["prompt"] == text
        told = client.post("/tokenize", messages=said, return_token_strs=True, **asked)
        assert told["tokens"] == theirs.encode(text, add_special_tokens=False)
        assert told["token_strs"] == theirs.convert_ids_to_tokens(told["tokens"])


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_timings_add_up(client: Client, path: str):
    answer = client.post(path, timings_per_token=True)
    told, usage = answer["timings"], answer["usage"]
    assert told["cache_n"] + told["prompt_n"] == usage["prompt_tokens"]
    assert told["predicted_n"] == usage["completion_tokens"]
    assert told["prompt_ms"] > 0
    assert told["predicted_ms"] > 0
    counts = [c["timings"]["predicted_n"] for c in client.chunks(path, timings_per_token=True)]
    assert counts == sorted(counts)
    assert counts[-1] == usage["completion_tokens"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_progress_goes_from_what_was_cached_to_the_whole_prompt(client: Client, path: str):
    text = f"{path} " + "The ferry left the island at noon. " * 30
    field = {"messages": [{"role": "user", "content": text}]} if path == CHAT else {"prompt": text}
    asked = {**field, "max_tokens": 4, "stream_options": {"include_usage": True}}
    texts, cached = [], []
    for _ in range(2):
        *chunks, last = client.chunks(path, return_progress=True, **asked)
        told = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
        choices = [chunk["choices"][0] for chunk in chunks]
        texts.append([c.get("text") or c.get("delta", {}).get("content") for c in choices])
        assert len(told) >= 2
        assert told[0]["processed"] == told[0]["cache"]
        cached.append(told[0]["cache"])
        processed = [state["processed"] for state in told]
        assert processed == sorted(set(processed))
        usage = last["usage"]
        assert {state["total"] for state in told} == {usage["prompt_tokens"]} == {processed[-1]}
        assert told[-1]["cache"] == usage["prompt_tokens_details"]["cached_tokens"]
        assert told[0]["time_ms"] == 0
    # other tests' prompts may have left the template's first block
    assert cached[0] <= BLOCK_TOKENS < cached[1]
    plain = [chunk for chunk in client.chunks(path, **asked) if "prompt_progress" in chunk]
    assert plain == []
    assert "".join(filter(None, texts[0])) == "".join(filter(None, texts[1]))


def test_answers_of_one_model_have_one_fingerprint(client: Client):
    told = {client.post(path)["system_fingerprint"] for path in (CHAT, COMPLETIONS)}
    told |= {chunk["system_fingerprint"] for chunk in client.chunks(CHAT)}
    assert len(told) == 1
