"""Several choices of one prompt, by the engine's own counters and by their texts."""

import itertools
import json

import httpx
import pytest

from app.runtime.decoder import BLOCK_TOKENS
from tests.e2e.server import DEFAULT_MODEL, Server
from tests.test_metrics import parsed

N = 4
numbers = itertools.count()


def prompt() -> str:
    """Some 700 tokens that no other request begins with."""
    return f"Report number {next(numbers)} of the choices. " + " ".join(
        f"On day {day} the ferry took {day * 7 % 50} people over the river." for day in range(40)
    )


def fed_tokens(client: httpx.Client) -> float:
    """Prompt tokens that the decoder computed since the server's start."""
    found = parsed(client.get("/metrics").raise_for_status().text)
    return found["prompt_tokens_total", ""] - found["prefix_cache_hits_total", ""]


def ask(client: httpx.Client, **fields: object) -> dict:
    asked = {"model": DEFAULT_MODEL, "max_tokens": 24, **fields}
    answer: dict = client.post("/v1/completions", json=asked).raise_for_status().json()
    return answer


def texts(answer: dict) -> list[str]:
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(answer["choices"])))
    return [choice["text"] for choice in answer["choices"]]


def test_n_choices_cost_one_prefill(server: Server):
    with server.client() as client:
        before = fed_tokens(client)
        answer = ask(client, prompt=prompt(), n=N)
        fed = fed_tokens(client) - before
        num_prompt = answer["usage"]["prompt_tokens"]
        assert num_prompt > 500, "what each choice feeds by itself must be small beside it"
        # a choice takes over whole blocks and feeds the rest, which is never less than two tokens
        by_itself = (num_prompt - 2) % BLOCK_TOKENS + 2
        assert fed == num_prompt + (N - 1) * by_itself
        assert answer["usage"]["completion_tokens"] <= N * 24


def test_n_choices_differ_with_sampling(server: Server):
    """Odds against it: with the default temperature a first token alone has a dozen candidates."""
    asked = {"prompt": prompt(), "n": N, "seed": 11}
    with server.client() as client:
        first, again = (texts(ask(client, **asked)) for _ in range(2))
        assert len(set(first)) == N, first
        assert again == first, "the same seed gives the same four"
        singles = [texts(ask(client, **{**asked, "n": 1, "seed": 11 + i})) for i in range(N)]
        assert [[text] for text in first] == singles, "each is what it would be alone"


def test_n_choices_are_the_same_with_temperature_0(server: Server):
    asked = {"prompt": prompt(), "temperature": 0}
    with server.client() as client:
        [alone] = texts(ask(client, **asked))
        assert alone.strip()
        assert texts(ask(client, **asked, n=N)) == [alone] * N


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_n_choices_streamed_are_what_they_are_whole(server: Server, path: str):
    asked = {"model": DEFAULT_MODEL, "max_tokens": 24, "n": N, "seed": 3}
    asked |= (
        {"messages": [{"role": "user", "content": prompt()}]}
        if "chat" in path
        else {"prompt": prompt()}
    )
    with server.client() as client:
        whole = client.post(path, json=asked).raise_for_status().json()["choices"]
        body = client.post(path, json={**asked, "stream": True}).raise_for_status().text
    *events, last, _ = body.split("\n\n")
    assert last == "data: [DONE]"
    streamed, reasons = [""] * N, [None] * N
    for event in events:
        [choice] = json.loads(event.removeprefix("data: "))["choices"]
        index = choice["index"]
        assert reasons[index] is None, "nothing comes after a choice's end"
        piece = choice["delta"].get("content", "") if "chat" in path else choice["text"]
        streamed[index] += piece
        reasons[index] = choice["finish_reason"]
    said = [c["message"]["content"] if "chat" in path else c["text"] for c in whole]
    assert streamed == said
    assert reasons == [choice["finish_reason"] for choice in whole]
