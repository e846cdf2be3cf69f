"""The main job over a socket: LocalLab's text endpoints on the default model."""

import asyncio

import httpx
import pytest

from tests.e2e.server import DEFAULT_MODEL, Server, running_server

SSE = {"Accept": "text/event-stream"}
GREEDY = {"temperature": 0, "repetition_penalty": 1.0}
TOPICS = [
    "rain",
    "bread",
    "clocks",
    "whales",
    "bicycles",
    "volcanoes",
    "letters",
    "winter",
    "chess",
    "honey",
    "bridges",
    "maps",
    "planets",
    "gardens",
    "trains",
    "coffee",
    "mirrors",
    "rivers",
    "castles",
    "music",
    "tea",
    "lighthouses",
    "glass",
    "moths",
    "paper",
    "salt",
    "deserts",
    "violins",
    "ants",
    "snow",
    "wool",
    "kites",
]
PROMPTS = [f"Tell me {'one thing ' * (i % 5)}about {topic}." for i, topic in enumerate(TOPICS)]


def sse_text(body: str) -> str:
    """The text of a strict event stream, which must end as complete."""
    events = body.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""], body[-200:]
    return "".join(
        "\n".join(line.removeprefix("data: ") for line in event.split("\n"))
        for event in events[:-2]
    )


def test_the_capital_of_japan_is_tokyo(server: Server) -> None:
    with server.client() as client:
        answer = client.post(
            "/generate", json={"prompt": "What is the capital of Japan?", **GREEDY}
        )
    assert answer.status_code == 200
    body = answer.json()
    assert body["response"] == "The capital of Japan is Tokyo."
    assert body["finish_reason"] == "stop"
    assert body["model_id"] == DEFAULT_MODEL
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_32_prompts_at_once_equal_each_alone(server: Server) -> None:
    assert len(set(PROMPTS)) == 32

    async def answer(client: httpx.AsyncClient, prompt: str) -> tuple[str, int]:
        body = {"prompt": prompt, "max_length": 24, **GREEDY}
        response = await client.post("/generate", json=body)
        assert response.status_code == 200, response.text
        return response.json()["response"], response.json()["usage"]["completion_tokens"]

    async with server.async_client() as client:
        alone = [await answer(client, prompt) for prompt in PROMPTS]
        together = await asyncio.gather(*(answer(client, prompt) for prompt in PROMPTS))
    assert len({text for text, _ in alone}) >= 30, "answers must differ or this proves nothing"
    for prompt, one, other in zip(PROMPTS, alone, together, strict=True):
        assert one == other, prompt


async def test_long_prompts_cut_into_chunks_beside_others_equal_each_alone(server: Server) -> None:
    prompts = [" ".join(PROMPTS[i:]) + " " + " ".join(PROMPTS[:i]) for i in range(6)]

    async def answer(
        client: httpx.AsyncClient, prompt: str, after: asyncio.Event, begun: asyncio.Event
    ) -> str:
        await after.wait()
        body = {"prompt": prompt, "max_length": 16, "stream": True, **GREEDY}
        text = ""
        async with client.stream("POST", "/generate", json=body, headers=SSE) as response:
            async for piece in response.aiter_text():
                text += piece
                begun.set()
        return sse_text(text)

    async with server.async_client() as client:
        now = asyncio.Event()
        now.set()
        alone = [await answer(client, prompt, now, now) for prompt in prompts]
        # each is fed beside one that is fed too and one that generates
        turns = [now, now, *(asyncio.Event() for _ in prompts)]
        async with asyncio.timeout(120):
            together = await asyncio.gather(
                *(
                    answer(client, prompt, turns[i], turns[i + 2])
                    for i, prompt in enumerate(prompts)
                )
            )
    assert alone == together


def test_streamed_equals_whole_in_both_framings_and_in_chat(server: Server) -> None:
    body = {"prompt": "Give me three tips for better sleep.", "max_length": 120, **GREEDY}
    chat = {"messages": [{"role": "user", "content": body["prompt"]}], "max_length": 120, **GREEDY}
    with server.client() as client:
        whole = client.post("/generate", json=body).json()["response"]
        assert "\n" in whole, "a newline must be framed or this proves less"
        strict = client.post("/generate", json={**body, "stream": True}, headers=SSE)
        assert strict.headers["content-type"].startswith("text/event-stream")
        assert sse_text(strict.text) == whole
        plain = client.post("/generate", json={**body, "stream": True}).text
        lines = [line.removeprefix("data: ") for line in plain.split("\n") if line]
        assert lines[-1] == "[DONE]"
        assert "".join(lines[:-1]).replace("\\n", "\n") == whole
        said = client.post("/chat", json=chat).json()["choices"][0]["message"]["content"]
        assert said == whole


def test_batch_answers_in_order(server: Server) -> None:
    prompts = ["What is the capital of Japan?", "What is photosynthesis?"]
    body = {"prompts": prompts, "max_length": 30, **GREEDY}
    with server.client() as client:
        answer = client.post("/generate/batch", json=body).json()
    assert "Tokyo" in answer["responses"][0]
    assert "plants" in answer["responses"][1]


def test_sampling_obeys_the_seed(server: Server) -> None:
    body = {"prompt": "Tell me a story.", "max_length": 20, "temperature": 1.0}
    with server.client() as client:
        texts = [
            client.post("/generate", json={**body, "seed": seed}).json()["response"]
            for seed in (1, 1, 2)
        ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_a_prompt_longer_than_the_context_is_413_with_both_numbers(server: Server) -> None:
    with server.client() as client:
        answer = client.post("/generate", json={"prompt": "word " * 9000})
    assert answer.status_code == 413
    detail = answer.json()["detail"]
    assert "8192" in detail
    assert "90" in detail


async def test_200_dropped_requests_leave_every_slot_free(server: Server) -> None:
    async with server.async_client() as client:

        async def drop(i: int) -> None:
            body = {"prompt": f"Tell a very long story, number {i}.", "max_length": 10_000}
            answer = client.post("/generate", json={**body, "stream": i % 2 == 0})
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(answer, 0.5)

        await asyncio.gather(*(drop(i) for i in range(200)))
        async with asyncio.timeout(120):
            used = 1
            while used:
                await asyncio.sleep(0.1)
                health = (await client.get("/health")).json()
                used = health["slots_used"] + health["waiting"]
        answer = await client.post("/generate", json={"prompt": "Hello", "max_length": 4})
    assert answer.json()["usage"]["completion_tokens"] <= 4


async def test_a_full_queue_is_429_with_retry_after(tmp_path) -> None:
    with running_server(tmp_path, slots=2, max_waiting=1, context_length=512) as server:
        async with server.async_client() as client:
            body = {"prompt": "Tell a long story.", "max_length": 200, **GREEDY}
            answers = await asyncio.gather(*(client.post("/generate", json=body) for _ in range(8)))
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200] * 3 + [429] * 5
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert "limit is 3" in refused.json()["detail"]
