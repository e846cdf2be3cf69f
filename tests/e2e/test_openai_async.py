"""The `openai` package's asynchronous client, and how both report failures and keys.

What an answer holds is in `test_openai_client`; this shows that the other client reads it too.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.faulty_app import DECODE_FAULT, PREFILL_FAULT
from tests.e2e.server import DEFAULT_MODEL, PATIENCE_S, Server, running_server
from tests.e2e.test_openai_client import ANSWER, CHAT, GREEDY, QUESTION, WEATHER, City

RESPONSE = {"model": DEFAULT_MODEL, "input": QUESTION, "temperature": 0}
CALLING = {
    "tools": [{"type": "function", "function": {**WEATHER, "strict": True}}],
    "tool_choice": "required",
    "parallel_tool_calls": False,
}


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="EMPTY", max_retries=0) as client:
        yield client


async def test_models(client: AsyncOpenAI):
    assert DEFAULT_MODEL in [model.id async for model in client.models.list()]
    assert (await client.models.retrieve(DEFAULT_MODEL)).id == DEFAULT_MODEL


async def test_several_conversations_at_once_whole_and_streamed(client: AsyncOpenAI):
    async def whole() -> str | None:
        completion = await client.chat.completions.create(**GREEDY)
        return completion.choices[0].message.content

    async def streamed() -> str:
        options = {"include_usage": True}
        stream = await client.chat.completions.create(**GREEDY, stream=True, stream_options=options)
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage.completion_tokens > 0
        return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)

    async def helped() -> str | None:
        async with client.chat.completions.stream(**GREEDY) as stream:
            return (await stream.get_final_completion()).choices[0].message.content

    asked = [form() for form in (whole, streamed, helped) for _ in range(3)]
    assert await asyncio.gather(*asked) == [ANSWER] * 9


async def test_completions(client: AsyncOpenAI):
    asked = {"model": DEFAULT_MODEL, "prompt": "One, two, three,", "temperature": 0}
    [choice] = (await client.completions.create(**asked, max_tokens=5, logprobs=2)).choices
    assert "".join(choice.logprobs.tokens) == choice.text
    stream = await client.completions.create(**asked, max_tokens=5, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == choice.text


async def test_logprobs(client: AsyncOpenAI):
    completion = await client.chat.completions.create(**GREEDY, logprobs=True, top_logprobs=2)
    said = completion.choices[0].logprobs.content
    assert [len(token.top_logprobs) for token in said] == [2] * len(said)
    response = await client.responses.create(
        **RESPONSE, include=["message.output_text.logprobs"], top_logprobs=2
    )
    [part] = response.output[0].content
    assert [token.logprob for token in part.logprobs] == [token.logprob for token in said]


async def test_responses(client: AsyncOpenAI):
    response = await client.responses.create(**RESPONSE)
    assert (response.output_text, response.status) == (ANSWER, "completed")
    stream = await client.responses.create(**RESPONSE, stream=True)
    deltas = [e.delta async for e in stream if e.type == "response.output_text.delta"]
    assert len(deltas) > 3
    assert "".join(deltas) == ANSWER
    turns = [
        {"role": "user", "content": QUESTION},
        *response.output,
        {"role": "user", "content": "And of France?"},
    ]
    second = await client.responses.create(**{**RESPONSE, "input": turns})
    assert "Paris" in second.output_text, "the first turn must have come along"
    told = await client.responses.create(**RESPONSE, instructions="Answer in one word.")
    assert told.usage.input_tokens != response.usage.input_tokens


async def test_json_schema_through_parse(client: AsyncOpenAI):
    completion = await client.chat.completions.parse(**GREEDY, response_format=City, max_tokens=200)
    assert isinstance(completion.choices[0].message.parsed, City)
    response = await client.responses.parse(**RESPONSE, text_format=City, max_output_tokens=200)
    assert isinstance(response.output_parsed, City)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the client's own
async def test_what_parse_made_can_be_sent_back(client: AsyncOpenAI):
    """Its messages carry what it read out of them: `parsed`, `parsed_arguments`."""
    asked = {"model": DEFAULT_MODEL, "temperature": 0, "max_tokens": 200}
    turns = [{"role": "user", "content": QUESTION}]
    first = await client.chat.completions.parse(**asked, messages=turns, response_format=City)
    turns += [first.choices[0].message, {"role": "user", "content": "What is the weather there?"}]
    called = await client.chat.completions.parse(**asked, **CALLING, messages=turns)
    message = called.choices[0].message
    [call] = message.tool_calls
    assert call.function.parsed_arguments["city"] in ("Tokyo", "Kyoto")
    turns += [message, {"role": "tool", "tool_call_id": call.id, "content": "It is sunny."}]
    last = await client.chat.completions.create(**{**asked, "max_tokens": 8}, messages=turns)
    assert last.choices[0].message.content


async def test_tools(client: AsyncOpenAI):
    [choice] = (await client.chat.completions.create(**GREEDY, **CALLING)).choices
    [call] = choice.message.tool_calls
    assert (choice.finish_reason, call.function.name) == ("tool_calls", "get_weather")
    stream = await client.chat.completions.create(**GREEDY, **CALLING, stream=True)
    deltas = [c.choices[0].delta.tool_calls async for c in stream if c.choices[0].delta.tool_calls]
    joined = "".join(tool.function.arguments or "" for [tool] in deltas)
    assert joined == call.function.arguments
    assert json.loads(joined)["city"] in ("Tokyo", "Kyoto")
    none = await client.chat.completions.create(**GREEDY, **{**CALLING, "tool_choice": "none"})
    assert none.choices[0].message.content == ANSWER, "tools that can't be called are not shown"


async def test_errors_are_raised_as_the_clients_own(client: AsyncOpenAI):
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(**{**CHAT, "model": "no/such"})
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert missing.value.request_id.startswith("req_")
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(**CHAT, stream=True, extra_body={"top_kk": 1})
    assert (bad.value.param, bad.value.code) == ("top_kk", "unknown_parameter")


async def test_a_client_that_goes_away_leaves_its_place(client: AsyncOpenAI, server: Server):
    asked = {**CHAT, "max_tokens": 4000, "extra_body": {"ignore_eos": True}}
    async with await client.chat.completions.create(**asked, stream=True) as stream:
        await anext(aiter(stream))
    give_up = time.monotonic() + PATIENCE_S
    async with httpx.AsyncClient(base_url=server.url) as plain:
        while "num_requests_running{" in (text := (await plain.get("/metrics")).text):
            [line] = [x for x in text.splitlines() if x.startswith("llmhost_num_requests_running")]
            if float(line.rpartition(" ")[2]) == 0:
                break
            assert time.monotonic() < give_up, line
            await asyncio.sleep(0.05)


async def test_its_retries_obey_our_retry_after(tmp_path: Path):
    """One request a second is let through: the next is told to wait and comes again by itself."""
    asked = {**GREEDY, "max_tokens": 1}
    statuses: list[int] = []

    async def note(answer: httpx.Response) -> None:
        statuses.append(answer.status_code)

    http_client = openai.DefaultAsyncHttpxClient(event_hooks={"response": [note]})
    with running_server(tmp_path, rate_limit_burst=1) as server:
        async with AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="EMPTY", max_retries=2, http_client=http_client
        ) as client:
            # at once: of two that come one after the other the second may come a second later
            await asyncio.gather(*(client.chat.completions.create(**asked) for _ in range(2)))
    # its own back-off begins at half a second: without our header it would be refused once more
    assert sorted(statuses) == [200, 200, 429]


def test_a_closed_server_takes_an_api_key_and_nothing_else(tmp_path: Path):
    with running_server(tmp_path, require_auth="true") as server:
        body = {"username": "ada", "password": "testpassword"}
        with server.client() as plain:
            plain.post("/register", json=body).raise_for_status()
            token = plain.post("/login", data=body).json()["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            made = plain.post("/me/keys", json={"name": "test"}, headers=headers).json()
        with OpenAI(base_url=f"{server.url}/v1", api_key=made["key"], max_retries=0) as client:
            assert client.chat.completions.create(**GREEDY).choices[0].message.content == ANSWER
            with pytest.raises(openai.AuthenticationError) as refused:
                client.with_options(api_key="sk-wrong").models.list()
            assert refused.value.code == "invalid_api_key"


@pytest.mark.parametrize("path", ["chat", "completions", "responses"])
def test_a_failure_in_the_middle_of_a_stream_is_raised(faulty: Server, path: str):
    with OpenAI(base_url=f"{faulty.url}/v1", api_key="EMPTY", max_retries=0) as client:
        asked = {"model": DEFAULT_MODEL, "stream": True}
        said = {"role": "user", "content": f"Of {path}: a {DECODE_FAULT} flies."}
        if path == "chat":
            stream = client.chat.completions.create(**asked, messages=[said])
        elif path == "completions":
            stream = client.completions.create(**asked, prompt=said["content"])
        else:
            stream = client.responses.create(**asked, input=[said])
        events = []
        if path == "responses":  # it has an event for this, which its reader is to look at
            events = list(stream)
            assert events[-1].type in ("error", "response.failed")
        else:
            with pytest.raises(openai.APIError):
                events += stream
        assert len(events) > 1, "it must have begun"


def test_a_failure_before_the_first_token_is_a_status(faulty: Server):
    with OpenAI(base_url=f"{faulty.url}/v1", api_key="EMPTY", max_retries=0) as client:
        said = {"role": "user", "content": f"A {PREFILL_FAULT} sounds."}
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError):
                client.chat.completions.create(model=DEFAULT_MODEL, messages=[said], stream=stream)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("faulty")
    with running_server(folder, target="tests.e2e.faulty_app:app") as server:
        yield server
