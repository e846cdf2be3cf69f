"""Whole answers and streams of `POST /v1/completions`, compared as a whole."""

import json

from app.contract.generation import TextDelta
from app.contract.sampling import FinishReason
from app.contract.tokens import PromptLogprobs, TokenLogprob
from tests.dialects.openai.scripted import (
    COMPLETIONS,
    FINGERPRINT,
    ScriptedService,
    end,
    logprob,
    post,
    prompt_token,
)
from tests.dialects.readers import read_events
from tests.fakes import MODEL_ID

PROMPT = PromptLogprobs(
    (prompt_token("H", None), prompt_token("i", -1.5, ("o", -0.25), ("i", -1.5)))
)
TOKENS = logprob(" you", -0.5, (" you", -0.5)), logprob("�", -0.75, ("�", -0.125))
SCRIPT = [PROMPT, TextDelta(" you", TOKENS[:1]), TextDelta("!", TOKENS[1:]), end()]
MADE = {
    "tokens": [" you", "�"],
    "token_logprobs": [-0.5, -0.75],
    # two tokens of one text: the likeliest stands
    "top_logprobs": [{" you": -0.5}, {"�": -0.125}],
    "text_offset": [0, 4],
}
ECHOED = {
    "tokens": ["H", "i", *MADE["tokens"]],
    "token_logprobs": [None, -1.5, *MADE["token_logprobs"]],
    "top_logprobs": [None, {"o": -0.25, "i": -1.5}, *MADE["top_logprobs"]],
    "text_offset": [0, 1, 2, 6],
}


async def test_a_whole_answer():
    answer = await post(ScriptedService([TextDelta(" you"), end(FinishReason.LENGTH)]), COMPLETIONS)
    body = answer.json
    assert answer.status == 200
    assert body.pop("id").startswith("cmpl-")
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "object": "text_completion",
        "model": MODEL_ID,
        "system_fingerprint": FINGERPRINT,
        "choices": [{"index": 0, "text": " you", "logprobs": None, "finish_reason": "length"}],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def test_choices_are_prompt_major_and_each_prompt_counts_once():
    scripts = [[TextDelta(text), end()] for text in "abcd"]
    body = (await post(ScriptedService(*scripts), COMPLETIONS, prompt=["x", "y"], n=2)).json
    assert [(c["index"], c["text"]) for c in body["choices"]] == list(enumerate("abcd"))
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (6, 8)


async def test_logprobs():
    [choice] = (await post(ScriptedService(SCRIPT[1:]), COMPLETIONS, logprobs=1)).json["choices"]
    assert choice["logprobs"] == MADE


async def test_a_character_of_several_tokens_stands_where_it_began():
    cut = [
        TokenLogprob(1, "�", piece, -0.5) for piece in (b"a\xe6", b"\x97", b"\xa5b", "本".encode())
    ]
    answer = await post(
        ScriptedService([TextDelta("a日b本", tuple(cut)), end()]), COMPLETIONS, logprobs=0
    )
    assert answer.json["choices"][0]["logprobs"]["text_offset"] == [0, 1, 1, 3]


async def test_echo_with_logprobs_begins_with_the_prompts_own():
    answer = await post(ScriptedService(SCRIPT), COMPLETIONS, logprobs=1, echo=True)
    [choice] = answer.json["choices"]
    assert (choice["text"], choice["logprobs"]) == ("Hi you!", ECHOED)


async def test_the_prompts_figures_without_a_token_made():
    script = [PROMPT, end(FinishReason.LENGTH, tokens=0)]
    answer = await post(ScriptedService(script), COMPLETIONS, logprobs=1, echo=True, max_tokens=0)
    [choice] = answer.json["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("Hi", "length")
    assert choice["logprobs"] == {name: values[:2] for name, values in ECHOED.items()}


async def test_tokens_are_echoed_as_their_text():
    service = ScriptedService([TextDelta("!"), end()])
    body = (await post(service, COMPLETIONS, prompt=[[72, 105], [89, 111]], echo=True)).json
    assert [choice["text"] for choice in body["choices"]] == ["Hi!", "Yo!"]


async def test_a_stream():
    options = {"include_usage": True}
    answer = await post(
        ScriptedService(SCRIPT),
        COMPLETIONS,
        logprobs=1,
        echo=True,
        stream=True,
        stream_options=options,
    )
    *events, last = read_events(answer.body)
    chunks = [json.loads(event) for event in events]
    assert last == "[DONE]"
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert [(chunk["choices"], chunk["usage"] is None) for chunk in chunks] == [
        ([choice("Hi", piece(ECHOED, 0, 2))], True),
        ([choice(" you", piece(ECHOED, 2, 3))], True),
        ([choice("!", piece(ECHOED, 3, 4))], True),
        ([choice("", None, "stop")], True),
        ([], False),
    ]


def choice(text: str, logprobs: dict | None, reason: str | None = None) -> dict:
    return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}


def piece(logprobs: dict, begin: int, stop: int) -> dict:
    return {name: values[begin:stop] for name, values in logprobs.items()}
