"""What the dialects are asked alike, they answer alike: text, calls, tokens and why it ended."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.contract.sampling import FinishReason
from app.engine.sequence import EngineRequest
from tests.accounts_app import CHAT, Server, running
from tests.asgi_client import ask
from tests.dialects.readers import read_events
from tests.fakes import MODEL_ID, FakeService, Step, byte_ids
from tests.hosts import app_over, host_over

NAMES = ("get_weather", "look")
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
# never empty: a whole answer of Anthropic's has {} for arguments that were cut off
arguments = st.dictionaries(
    texts, st.one_of(texts, st.integers(-9, 9), st.booleans()), min_size=1, max_size=2
)
calls = st.lists(st.tuples(st.sampled_from(NAMES), arguments), max_size=2)
turns = st.lists(st.tuples(texts, texts), max_size=2)
Call = tuple[str, dict[str, Any]]
Said = tuple[str, list[Call], int, int, str]
"""(text, calls, tokens of the prompt, of the answer, why it ended)."""


def written(text: str, made: list[Call]) -> str:
    """An answer as a model writes it, calls in Hermes' form."""
    lines = [
        json.dumps({"name": name, "arguments": given}, ensure_ascii=False) for name, given in made
    ]
    return text + "".join(f"\n<tool_call>\n{line}\n</tool_call>" for line in lines)


class Model:
    """A model that says one thing, as much of it as it may."""

    def __init__(self) -> None:
        self.says = ""
        self.service = FakeService(script=self._script)
        self.app = app_over(host_over(self.service))

    def _script(self, request: EngineRequest) -> list[Step]:
        ids = byte_ids(self.says)
        if len(ids) < request.max_tokens:
            return [ids]
        return [ids[: request.max_tokens], FinishReason.LENGTH]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture
async def documented(tmp_path: Path) -> AsyncIterator[tuple[Model, Server, str]]:
    """A model, a server with accounts around it, and a user's token."""
    model = Model()
    async with running(tmp_path, model.service) as server:
        yield model, server, await server.token("ada")


@settings(max_examples=20)
@given(asked=st.tuples(texts, turns, texts), said=st.tuples(texts, calls), most=st.integers(1, 250))
async def test_what_is_asked_alike_is_answered_alike(
    model: Model,
    asked: tuple[str, list[tuple[str, str]], str],
    said: tuple[str, list[Call]],
    most: int,
):
    system, before, question = asked
    model.says = written(*said)
    model.service.engine.submitted.clear()
    turns = [turn for pair in before for turn in zip(("user", "assistant"), pair, strict=True)]
    messages = [{"role": role, "content": text} for role, text in [*turns, ("user", question)]]
    answers = {
        (asking.__name__, stream): await asking(model.app, system, messages, most, stream=stream)
        for asking in (chat, responses, anthropic, ollama)
        for stream in (False, True)
    }
    assert len(set(model.service.prompts())) == 1, model.service.prompts()
    first, *others = answers.values()
    assert all(answer == first for answer in others), answers
    _, made, _, tokens, reason = first
    assert tokens <= most
    if reason == "stop":
        assert made == said[1]


async def test_a_last_turn_of_the_assistant_is_gone_on_with_alike(model: Model):
    model.says = " Tokyo."
    model.service.engine.submitted.clear()
    turns = [
        {"role": "user", "content": "Japan's capital?"},
        {"role": "assistant", "content": "It is"},
    ]
    for path, more in (
        ("/v1/chat/completions", {"continue_final_message": True}),
        ("/v1/messages", {"max_tokens": 99}),
        ("/api/chat", {"stream": False}),
    ):
        body = {"model": MODEL_ID, "messages": turns, **more}
        answer = await ask(model.app, "POST", path, body)
        assert answer.status == 200, answer.body
        assert text_and_tokens(answer.json)[0] == model.says
    [prompt] = set(model.service.prompts())
    assert prompt.endswith("It is"), "the turn is open"


async def chat(
    app: Any, system: str, messages: list[dict[str, str]], cut: int, *, stream: bool
) -> Said:
    body = {
        "model": MODEL_ID,
        "messages": [{"role": "system", "content": system}, *messages],
        "tools": functions(),
        "max_tokens": cut,
        "stream": stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    }
    answer = await ask(app, "POST", "/v1/chat/completions", body)
    assert answer.status == 200, answer.body
    if not stream:
        [choice] = answer.json["choices"]
        message, usage = choice["message"], answer.json["usage"]
        made = [call["function"] for call in message.get("tool_calls", [])]
        reason = choice["finish_reason"]
        said = message["content"] or ""
    else:
        chunks = [json.loads(e[6:]) for e in answer.body.decode().split("\n\n") if e[6:7] == "{"]
        usage = chunks[-1]["usage"]
        choices = [chunk["choices"][0] for chunk in chunks[:-1]]
        said = "".join(choice["delta"].get("content") or "" for choice in choices)
        made = []
        for choice in choices:
            for piece in choice["delta"].get("tool_calls", []):
                if "id" in piece:
                    made.append({"name": piece["function"]["name"], "arguments": ""})
                made[-1]["arguments"] += piece["function"]["arguments"]
        reason = choices[-1]["finish_reason"]
    return (
        said,
        whole_calls([(call["name"], call["arguments"]) for call in made]),
        usage["prompt_tokens"],
        usage["completion_tokens"],
        "length" if reason == "length" else "stop",
    )


async def responses(
    app: Any, system: str, messages: list[dict[str, str]], cut: int, *, stream: bool
) -> Said:
    body = {
        "model": MODEL_ID,
        "instructions": system,
        "input": messages,
        "tools": [{"type": "function", **one["function"], "strict": False} for one in functions()],
        "max_output_tokens": cut,
        "stream": stream,
    }
    answer = await ask(app, "POST", "/v1/responses", body)
    assert answer.status == 200, answer.body
    whole, said, made = answer.json if not stream else {}, "", []
    if stream:
        for block in answer.body.decode().strip("\n").split("\n\n"):
            event = json.loads(block.partition("data: ")[2])
            match event["type"]:
                case "response.output_text.delta":
                    said += event["delta"]
                case "response.output_item.added" if event["item"]["type"] == "function_call":
                    made.append([event["item"]["name"], ""])
                case "response.function_call_arguments.delta":
                    made[-1][1] += event["delta"]
                case "response.completed" | "response.incomplete":
                    whole = event["response"]
    else:
        for item in whole["output"]:
            if item["type"] == "message":
                said += "".join(part["text"] for part in item["content"])
            else:
                made.append([item["name"], item["arguments"]])
    cut_off = (whole["incomplete_details"] or {}).get("reason") == "max_output_tokens"
    usage = whole["usage"]
    return (
        said,
        whole_calls([(name, given) for name, given in made]),
        usage["input_tokens"],
        usage["output_tokens"],
        "length" if cut_off else "stop",
    )


async def anthropic(
    app: Any, system: str, messages: list[dict[str, str]], cut: int, *, stream: bool
) -> Said:
    body = {
        "model": MODEL_ID,
        "system": system,
        "messages": messages,
        "tools": [{"name": name, "input_schema": PARAMETERS} for name in NAMES],
        "max_tokens": cut,
        "stream": stream,
    }
    answer = await ask(app, "POST", "/v1/messages", body)
    assert answer.status == 200, answer.body
    said, made = "", []
    if not stream:
        usage, reason = answer.json["usage"], answer.json["stop_reason"]
        for block in answer.json["content"]:
            if block["type"] == "text":
                said += block["text"]
            else:
                made.append((block["name"], json.dumps(block["input"])))
        cut_off = reason == "max_tokens" and made and made[-1][1] == "{}"
        made = made[:-1] if cut_off else made
    else:
        blocks = answer.body.decode().strip("\n").split("\n\n")
        events = [json.loads(block.partition("data: ")[2]) for block in blocks]
        pieces: list[list[str]] = []
        for event in events:
            match event["type"]:
                case "content_block_start" if event["content_block"]["type"] == "tool_use":
                    pieces.append([event["content_block"]["name"], ""])
                case "content_block_delta":
                    delta = event["delta"]
                    said += delta.get("text", "")
                    if "partial_json" in delta:
                        pieces[-1][1] += delta["partial_json"]
                case "message_delta":
                    usage, reason = event["usage"], event["delta"]["stop_reason"]
        made = [(name, given) for name, given in pieces]
    return (
        said,
        whole_calls(made),
        usage["input_tokens"] + usage["cache_read_input_tokens"],
        usage["output_tokens"],
        "length" if reason == "max_tokens" else "stop",
    )


async def ollama(
    app: Any, system: str, messages: list[dict[str, str]], cut: int, *, stream: bool
) -> Said:
    body = {
        "model": MODEL_ID,
        "messages": [{"role": "system", "content": system}, *messages],
        "tools": functions(),
        "options": {"num_predict": cut, "temperature": 1, "top_k": 0, "top_p": 1},
        "stream": stream,
    }
    answer = await ask(app, "POST", "/api/chat", body)
    assert answer.status == 200, answer.body
    lines = [json.loads(line) for line in answer.body.splitlines()]
    last = lines[-1]
    made = [call["function"] for line in lines for call in line["message"].get("tool_calls", [])]
    return (
        "".join(line["message"]["content"] for line in lines),
        whole_calls([(call["name"], json.dumps(call["arguments"])) for call in made]),
        last["prompt_eval_count"],
        last["eval_count"],
        last["done_reason"],
    )


plain = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=30)
"""What every framing carries as it is: LocalLab's readers strip lines."""
EVENTS = {"accept": "text/event-stream"}


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=plain, said=plain)
async def test_one_question_is_answered_alike_by_the_documented_dialects_too(
    documented: tuple[Model, Server, str], question: str, said: str
):
    model, server, token = documented
    model.says = said
    model.service.engine.submitted.clear()
    turns = [{"role": "user", "content": question}]
    found = {}
    for path, body in (
        ("/v1/chat/completions", {"model": MODEL_ID, "messages": turns}),
        ("/v1/messages", {"model": MODEL_ID, "messages": turns, "max_tokens": 99}),
        ("/api/chat", {"model": MODEL_ID, "messages": turns, "stream": False}),
        ("/chat", {"messages": turns}),
        ("/generate", {"prompt": question}),
        ("/generate", {"query": question}),
    ):
        answer = await server.ask("POST", path, body, token=token)
        assert answer.status == 200, answer.body
        found[path, *body] = text_and_tokens(answer.json)
    for path, body in (
        ("/generate?stream=true", {"query": question}),
        ("/chat", {"messages": turns, "stream": True}),
        ("/generate", {"prompt": question, "stream": True}),
        (f"{CHAT}?chat_id=-1", {"messages": turns}),
    ):
        answer = await server.ask("POST", path, body, token=token, headers=EVENTS)
        assert answer.status == 200, answer.body
        pieces = [event for event in read_events(answer.body) if event != "[DONE]"]
        if path.endswith("stream=true"):
            pieces = [json.loads(piece)["content"] for piece in pieces]
        found[path, "streamed", *body] = ("".join(pieces), None)
    assert len(set(model.service.prompts())) == 1, model.service.prompts()
    assert {text for text, _ in found.values()} == {said}, found
    assert len({tokens for _, tokens in found.values() if tokens is not None}) == 1, found


def text_and_tokens(answer: dict[str, Any]) -> tuple[str, tuple[int, int] | None]:
    """The text of a whole answer, and the tokens of prompt and answer where they are told."""
    match answer:
        case {"choices": [{"message": {"content": text}}], "usage": usage}:
            return text, (usage["prompt_tokens"], usage["completion_tokens"])
        case {"content": [{"text": text}], "usage": usage}:
            cached = usage["cache_read_input_tokens"]
            return text, (usage["input_tokens"] + cached, usage["output_tokens"])
        case {"message": {"content": text}, "eval_count": tokens, "prompt_eval_count": prompt}:
            return text, (prompt, tokens)
        case {"response": text, "usage": usage}:
            return text, (usage["prompt_tokens"], usage["completion_tokens"])
        case {"content": text}:
            return text, None
    raise AssertionError(answer)


def functions() -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in NAMES
    ]


def whole_calls(made: list[tuple[str, str]]) -> list[Call]:
    """Calls with their arguments read; what was cut off is no call."""
    found = []
    for name, text in made:
        try:
            found.append((name, json.loads(text)))
        except ValueError:
            continue
    return found
