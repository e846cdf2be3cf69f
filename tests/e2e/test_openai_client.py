"""The unmodified `openai` package from PyPI against a real server process and the real model."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.e2e.server import DEFAULT_MODEL, Server, running_server

QUESTION, ANSWER = "What is the capital of Japan?", "The capital of Japan is Tokyo."
CHAT = {"model": DEFAULT_MODEL, "messages": [{"role": "user", "content": QUESTION}]}
GREEDY = {**CHAT, "temperature": 0}
WEATHER = {
    "name": "get_weather",
    "description": "Tell the weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Tokyo", "Kyoto"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class City(BaseModel):
    name: str
    is_capital: bool


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="EMPTY", max_retries=0) as client:
        yield client


def test_models(client: OpenAI):
    assert DEFAULT_MODEL in [model.id for model in client.models.list()]
    model = client.models.retrieve(DEFAULT_MODEL)  # the client writes the slash as %2F
    assert (model.id, model.object, model.owned_by) == (DEFAULT_MODEL, "model", "HuggingFaceTB")


def test_a_model_with_its_slash_as_it_is(server: Server):
    with server.client() as plain:
        assert plain.get(f"/v1/models/{DEFAULT_MODEL}").json()["id"] == DEFAULT_MODEL


def test_chat(client: OpenAI):
    completion = client.chat.completions.create(**GREEDY)
    [choice] = completion.choices
    assert (choice.message.content, choice.finish_reason) == (ANSWER, "stop")
    assert completion.usage.total_tokens == (
        completion.usage.prompt_tokens + completion.usage.completion_tokens
    )
    raw = client.chat.completions.with_raw_response.create(
        **GREEDY, extra_headers={"x-request-id": "mine"}
    )
    assert raw.headers["x-request-id"] == raw.parse()._request_id == "mine"


def test_chat_streamed_is_what_whole_is(client: OpenAI):
    chunks = list(
        client.chat.completions.create(
            **GREEDY, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    assert chunks[-1].usage.completion_tokens > 0
    with client.chat.completions.stream(**GREEDY) as stream:
        assert stream.get_final_completion().choices[0].message.content == ANSWER


def test_several_choices(client: OpenAI):
    same = client.chat.completions.create(**GREEDY, n=3)
    assert [choice.message.content for choice in same.choices] == [ANSWER] * 3
    other = client.chat.completions.create(**CHAT, n=4, seed=1, max_tokens=12)
    texts = [choice.message.content for choice in other.choices]
    assert len(set(texts)) > 1, texts
    again = client.chat.completions.create(**CHAT, n=4, seed=1, max_tokens=12)
    assert [choice.message.content for choice in again.choices] == texts


def test_logprobs(client: OpenAI):
    completion = client.chat.completions.create(**GREEDY, logprobs=True, top_logprobs=2)
    tokens = completion.choices[0].logprobs.content
    assert "".join(token.token for token in tokens).startswith(ANSWER)
    for token in tokens:
        assert token.logprob == token.top_logprobs[0].logprob <= 0, "greedy takes the likeliest"


def test_a_tool_that_must_be_called(client: OpenAI):
    tools = [{"type": "function", "function": WEATHER}]
    asked = {**GREEDY, "tools": tools, "tool_choice": "required", "parallel_tool_calls": False}
    [choice] = client.chat.completions.create(**asked).choices
    call = choice.message.tool_calls[0]
    assert choice.finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in ("Tokyo", "Kyoto")
    with client.chat.completions.stream(**asked) as stream:
        [streamed] = stream.get_final_completion().choices
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments


def test_json_schema_through_parse(client: OpenAI):
    completion = client.chat.completions.parse(**GREEDY, response_format=City, max_tokens=200)
    assert isinstance(completion.choices[0].message.parsed, City)


def test_completions(client: OpenAI):
    asked = {"model": DEFAULT_MODEL, "prompt": "One, two, three,", "temperature": 0}
    completion = client.completions.create(**asked, max_tokens=5, logprobs=2, echo=True)
    [choice] = completion.choices
    assert choice.text.startswith(asked["prompt"])
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.token_logprobs[0] is None
    assert all(logprob <= 0 for logprob in choice.logprobs.token_logprobs[1:])
    chunks = list(client.completions.create(**asked, max_tokens=5, stream=True))
    assert asked["prompt"] + "".join(chunk.choices[0].text for chunk in chunks) == choice.text


def test_responses(client: OpenAI):
    asked = {"model": DEFAULT_MODEL, "input": QUESTION, "temperature": 0}
    response = client.responses.create(**asked)
    assert (response.output_text, response.status) == (ANSWER, "completed")
    with client.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == ANSWER
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    cut = client.responses.create(**asked, max_output_tokens=2)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_responses_parse_and_tools(client: OpenAI):
    asked = {"model": DEFAULT_MODEL, "input": QUESTION, "temperature": 0}
    parsed = client.responses.parse(**asked, text_format=City, max_output_tokens=200)
    assert isinstance(parsed.output_parsed, City)
    tools = [{"type": "function", **WEATHER, "strict": True}]
    called = client.responses.create(
        **asked, tools=tools, tool_choice="required", parallel_tool_calls=False
    )
    [call] = [item for item in called.output if item.type == "function_call"]
    answer = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}
    turn = [{"role": "user", "content": QUESTION}, call, answer]
    after = client.responses.create(**{**asked, "input": turn}, max_output_tokens=8)
    assert after.output_text


def test_errors_are_raised_as_the_clients_own(client: OpenAI):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**{**CHAT, "model": "no/such"})
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(**CHAT, top_p=2)
    assert (bad.value.param, bad.value.code) == ("top_p", "invalid_value")
    with pytest.raises(openai.BadRequestError, match="maximum context length") as long:
        client.completions.create(model=DEFAULT_MODEL, prompt=[5] * 100_000)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="makes no embeddings"):
        client.embeddings.create(model=DEFAULT_MODEL, input="x")


def test_its_retries_obey_our_retry_after(tmp_path: Path):
    """One request a second is let through: the next is told to wait and comes again by itself."""
    answers: list[httpx.Response] = []
    http_client = openai.DefaultHttpxClient(event_hooks={"response": [answers.append]})
    with (
        running_server(tmp_path, rate_limit_burst=1) as server,
        OpenAI(
            base_url=f"{server.url}/v1", api_key="EMPTY", max_retries=2, http_client=http_client
        ) as client,
    ):
        asked, impatient = {**GREEDY, "max_tokens": 1}, client.with_options(max_retries=0)
        statuses: list[int] = []

        def ask_until_refused() -> None:
            for _ in range(10):
                impatient.chat.completions.create(**asked)

        for _ in range(10):  # until the last of them comes before a second is over
            with pytest.raises(openai.RateLimitError) as refused:
                ask_until_refused()
            assert refused.value.code == "rate_limit_exceeded"
            assert int(refused.value.response.headers["retry-after-ms"]) == 1000
            answers.clear()
            client.chat.completions.create(**asked)
            statuses = [answer.status_code for answer in answers]
            if statuses != [200]:
                break
    # its own back-off begins at half a second: without our header it would be refused once more
    assert statuses == [429, 200]


def test_tokenize_and_back(server: Server):
    with server.client() as plain:
        asked = {"model": DEFAULT_MODEL, "prompt": "Grüße, 東京 😀"}
        answer = plain.post("/tokenize", json=asked).json()
        assert answer["count"] == len(answer["tokens"]) > 0
        back = {"model": DEFAULT_MODEL, "tokens": answer["tokens"]}
        assert plain.post("/detokenize", json=back).json() == {"prompt": asked["prompt"]}
