"""What answers tell of tokens beside OpenAI's own fields: as vLLM writes it."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from app.contract.generation import TextDelta
from app.contract.tokens import PromptLogprobs, PromptToken, TokenLogprob
from app.contract.usage import PromptProgress, Timings
from app.dialects.openai import extras
from app.dialects.openai.extras import TimingsAnswer, fingerprint
from tests.dialects.openai.scripted import CHAT, COMPLETIONS, ScriptedService, end, logprob, post
from tests.dialects.readers import read_events

LIKELIEST, NEXT = TokenLogprob(8, "o", b"o", -0.25), TokenLogprob(9, "e", b"e", -0.5)
PROMPT = PromptLogprobs(
    (PromptToken(5, "H", b"H", None), PromptToken(6, "i", b"i", -1.5, (LIKELIEST, NEXT), 3))
)
OWN = {"6": {"logprob": -1.5, "rank": 3, "decoded_token": "i"}}
FIRST = {"8": {"logprob": -0.25, "rank": 1, "decoded_token": "o"}}
SECOND = {"9": {"logprob": -0.5, "rank": 2, "decoded_token": "e"}}


@pytest.mark.parametrize(
    ("most", "figures"), [(0, OWN), (1, OWN | FIRST), (2, OWN | FIRST | SECOND)]
)
async def test_figures_of_a_prompt(most, figures):
    script = [PROMPT, TextDelta("!"), end()]
    chat = await post(ScriptedService(script), CHAT, prompt_logprobs=most)
    assert chat.json["prompt_logprobs"] == [None, figures]
    completion = await post(ScriptedService(script), COMPLETIONS, prompt_logprobs=most)
    assert completion.json["choices"][0]["prompt_logprobs"] == [None, figures]


async def test_a_token_that_is_among_the_likeliest_is_there_once():
    likeliest = TokenLogprob(6, "i", b"i", -0.1)
    own = PromptToken(6, "i", b"i", -0.1, (likeliest, NEXT), 1)
    prompt = PromptLogprobs((PromptToken(5, "H", b"H", None), own))
    answer = await post(ScriptedService([prompt, end()]), CHAT, prompt_logprobs=2)
    [_, figures] = answer.json["prompt_logprobs"]
    assert list(figures) == ["6", "9"]


async def test_a_prompt_is_read_for_its_figures_once_however_many_choices_it_has():
    scripts = [[PROMPT, end()], [end()], [PROMPT, end()], [end()]]
    service = ScriptedService(*scripts)
    answer = await post(service, COMPLETIONS, prompt=["x", "y"], n=2, prompt_logprobs=0)
    assert [request.prompt_logprobs for request in service.requests] == [0, None, 0, None]
    told = [choice["prompt_logprobs"] for choice in answer.json["choices"]]
    assert told == [[None, OWN]] * 4


async def test_an_echo_has_as_many_as_it_asks_for_and_no_more():
    script = [PROMPT, TextDelta("!", (logprob("!"),)), end()]
    asked = {"echo": True, "logprobs": 1, "prompt_logprobs": 2}
    [choice] = (await post(ScriptedService(script), COMPLETIONS, **asked)).json["choices"]
    assert choice["logprobs"]["top_logprobs"][1] == {"o": -0.25, "i": -1.5}
    assert choice["prompt_logprobs"] == [None, OWN | FIRST | SECOND]


async def test_an_echo_is_read_for_its_logprobs_once_however_many_choices_it_has():
    gate = asyncio.Event()
    scripts = [
        [gate, PROMPT, TextDelta("!", (logprob("!"),)), end()],
        [TextDelta("?", (logprob("?"),)), end()],
    ]

    async def open_when_the_other_has_ended() -> None:
        while len(service.generations) < 2 or len(service.generations[1].token_ids) < 2:
            await asyncio.sleep(0)
        gate.set()

    texts, tokens = {}, {}
    for stream in (False, True):
        gate.clear()
        service = ScriptedService(*scripts)
        asked = {"n": 2, "echo": True, "logprobs": 1, "stream": stream}
        opening = asyncio.create_task(open_when_the_other_has_ended())
        answer = await post(service, COMPLETIONS, **asked)
        await opening
        assert [request.prompt_logprobs for request in service.requests] == [1, None]
        told = [json.loads(e) for e in read_events(answer.body)[:-1]] if stream else [answer.json]
        for choice in (choice for one in told for choice in one["choices"]):
            key = stream, choice["index"]
            texts[key] = texts.get(key, "") + choice["text"]
            if choice["logprobs"] is not None:
                tokens[key] = tokens.get(key, []) + choice["logprobs"]["tokens"]
    for stream in (False, True):
        assert (texts[stream, 0], texts[stream, 1]) == ("Hi!", "Hi?")
        assert (tokens[stream, 0], tokens[stream, 1]) == (["H", "i", "!"], ["H", "i", "?"])


async def test_token_ids_of_whole_answers():
    script = [TextDelta("a"), TextDelta("b"), end()]
    chat = (await post(ScriptedService(script), CHAT, n=2, return_token_ids=True)).json
    assert chat["prompt_token_ids"] == [5, 6, 7]
    assert [choice["token_ids"] for choice in chat["choices"]] == [[10, 11, 12]] * 2
    [text] = (await post(ScriptedService(script), COMPLETIONS, return_token_ids=True)).json[
        "choices"
    ]
    assert (text["prompt_token_ids"], text["token_ids"]) == ([5, 6, 7], [10, 11, 12])


@pytest.mark.parametrize(("path", "n"), [(CHAT, 1), (CHAT, 2), (COMPLETIONS, 1), (COMPLETIONS, 2)])
async def test_token_ids_of_streams_are_told_once_each(path, n):
    script = [TextDelta("a"), TextDelta("b"), end()]
    answer = await post(ScriptedService(script), path, stream=True, n=n, return_token_ids=True)
    *events, done = read_events(answer.body)
    chunks = [json.loads(event) for event in events]
    assert done == "[DONE]"
    if path == CHAT:
        prompts = [chunk["prompt_token_ids"] for chunk in chunks if "prompt_token_ids" in chunk]
        assert prompts == [[5, 6, 7]], "once for all choices"
    ids: dict[int, list[int]] = {}
    for chunk in chunks:
        [choice] = chunk["choices"]
        if path == COMPLETIONS:
            first = choice["index"] not in ids
            assert choice.get("prompt_token_ids") == ([5, 6, 7] if first else None)
        ids.setdefault(choice["index"], []).extend(choice.get("token_ids", []))
    assert ids == {index: [10, 11, 12] for index in range(n)}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_nothing_is_told_that_nobody_asked_for(path):
    script = [TextDelta("a", (logprob("a"),)), end()]
    asked = {"logprobs": True} if path == CHAT else {"logprobs": 1}
    whole = await post(ScriptedService(script), path, **asked)
    streamed = await post(ScriptedService(script), path, **asked, stream=True)
    for body in (whole.body, streamed.body):
        for name in (b"token_ids", b"token_id:", b"prompt_logprobs"):
            assert name not in body


PROGRESS = [PromptProgress(9, 4, 4, 0.0), PromptProgress(9, 4, 9, 0.0129)]
AS_TOLD = [
    {"total": 9, "cache": 4, "processed": 4, "time_ms": 0},
    {"total": 9, "cache": 4, "processed": 9, "time_ms": 12},
]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_progress_of_a_prompt_comes_in_chunks_of_its_own_before_the_text(path):
    asked = {"stream": True, "return_progress": True, "return_token_ids": True}
    service = ScriptedService([*PROGRESS, TextDelta("a"), end()])
    answer = await post(service, path, **asked)
    assert [request.progress for request in service.requests] == [True]
    *events, done = read_events(answer.body)
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    told = [chunk for chunk in chunks if "prompt_progress" in chunk]
    assert [chunk["prompt_progress"] for chunk in told] == AS_TOLD
    nothing = {"delta": {}} if path == CHAT else {"text": ""}
    choice = {"index": 0, "logprobs": None, "finish_reason": None, **nothing}
    assert [chunk["choices"] for chunk in told] == [[choice]] * 2
    # without them it is the stream of those who didn't ask: text, roles, token ids
    plain = await post(ScriptedService([TextDelta("a"), end()]), path, stream=True)
    rest = [chunk["choices"][0] for chunk in chunks if chunk not in told]
    for one in rest:
        one.pop("token_ids", None), one.pop("prompt_token_ids", None)
    assert rest == [json.loads(event)["choices"][0] for event in read_events(plain.body)[:-1]]


async def test_an_echo_comes_after_the_progress_with_the_prompts_figures():
    script = [*PROGRESS, PROMPT, TextDelta("!", (logprob("!"),)), end()]
    asked = {"stream": True, "return_progress": True, "echo": True, "logprobs": 1}
    answer = await post(ScriptedService(script), COMPLETIONS, **asked)
    choices = [json.loads(e)["choices"][0] for e in read_events(answer.body)[:-1]]
    assert [choice["text"] for choice in choices] == ["", "", "Hi", "!", ""]
    assert choices[2]["logprobs"]["tokens"] == ["H", "i"]


async def test_tokens_are_named_by_their_ids():
    """`logprob` makes token 7, and 9 of each alternative."""
    script = [TextDelta("a", (logprob("a", -0.5, ("b", -0.75)),)), end()]
    asked = {"return_tokens_as_token_ids": True}
    for stream in (False, True):
        answer = await post(ScriptedService(script), CHAT, logprobs=True, stream=stream, **asked)
        body = answer.body.decode()
        assert '"token":"token_id:7"' in body
        assert '"token":"token_id:9"' in body
        assert '"bytes":[97]' in body, "what it spells is told still"
    [choice] = (await post(ScriptedService(script), COMPLETIONS, logprobs=1, **asked)).json[
        "choices"
    ]
    assert choice["logprobs"]["tokens"] == ["token_id:7"]
    assert choice["logprobs"]["top_logprobs"] == [{"token_id:9": -0.75, "token_id:7": -0.5}]
    assert choice["text"] == "a"


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_stream_has_no_figures_of_its_prompt(path):
    answer = await post(ScriptedService(), path, stream=True, prompt_logprobs=1)
    assert (answer.status, answer.json["error"]["param"]) == (400, "prompt_logprobs")


TIMES = {
    "cache_n": 1,
    "prompt_n": 2,
    "prompt_ms": 500.0,
    "prompt_per_token_ms": 250.0,
    "prompt_per_second": 4.0,
    "predicted_n": 5,
    "predicted_ms": 2000.0,
    "predicted_per_token_ms": 500.0,
    "predicted_per_second": 2.0,
}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_timings_of_whole_answers_and_of_every_chunk(path):
    answer = await post(ScriptedService(), path, timings_per_token=True)
    assert answer.json["timings"] == TIMES
    streamed = await post(ScriptedService(), path, timings_per_token=True, stream=True)
    *events, _ = read_events(streamed.body)
    assert [json.loads(event)["timings"] for event in events] == [TIMES] * len(events)
    assert b"timings" not in (await post(ScriptedService(), path)).body


def test_a_figure_per_nothing_is_none():
    one = Timings(cached_tokens=3, prompt_tokens=0, prompt_s=0, generated_tokens=1, generation_s=0)
    told = TimingsAnswer.of(one)
    assert (told.prompt_per_token_ms, told.prompt_per_second) == (0, 0)
    assert (told.predicted_per_token_ms, told.predicted_per_second) == (0, 0)


def test_a_fingerprint_changes_with_the_model_and_with_the_version(monkeypatch):
    def of(digest: str) -> str:
        return fingerprint(SimpleNamespace(digest=digest))

    first = of("a")
    assert first == of("a") != of("b")
    monkeypatch.setattr(extras, "VERSION", "0.0.0")
    assert of("a") != first
