"""What OpenAI's clients keep with their server: the unmodified `openai` package, a real process."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from tests.e2e.server import DEFAULT_MODEL, Server, running_server, wait_for

PASSWORD = "testpassword"


def signed_in(server: Server, name: str) -> OpenAI:
    """A client with an API key of a new user."""
    with httpx.Client(base_url=server.url) as plain:
        plain.post("/register", json={"username": name, "password": PASSWORD}).raise_for_status()
        login = plain.post("/login", data={"username": name, "password": PASSWORD}).json()
        headers = {"Authorization": f"Bearer {login['access_token']}"}
        key = plain.post("/me/keys", json={"name": "e2e"}, headers=headers).json()["key"]
    return OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def ada(server: Server) -> Iterator[OpenAI]:
    with signed_in(server, "ada_keeps") as client:
        yield client


def ask(client: OpenAI, text: str, **fields):
    return client.responses.create(
        model=DEFAULT_MODEL, input=text, temperature=0, max_output_tokens=24, **fields
    )


def test_three_turns_by_previous_response_id(ada: OpenAI):
    """Each answer is the one that the whole conversation, sent at once, gets."""
    first = ask(ada, "What is the capital of Japan?")
    second = ask(ada, "And of France?", previous_response_id=first.id)
    third = ask(ada, "Which of the two is larger?", previous_response_id=second.id)
    assert third.previous_response_id == second.id
    turns = [
        ("user", "What is the capital of Japan?"),
        ("assistant", first.output_text),
        ("user", "And of France?"),
        ("assistant", second.output_text),
        ("user", "Which of the two is larger?"),
    ]
    sent = [{"role": role, "content": text} for role, text in turns]
    whole = ask(ada, sent, store=False)
    assert whole.output_text == third.output_text
    assert whole.usage.input_tokens == third.usage.input_tokens
    alone = ask(ada, "Which of the two is larger?", store=False)
    assert alone.usage.input_tokens < third.usage.input_tokens, "or the conversation was not read"
    listed = list(ada.responses.input_items.list(third.id, order="asc", limit=2))  # in pages
    assert [(item.role, item.content[0].text) for item in listed] == turns
    assert ada.responses.retrieve(third.id).output_text == third.output_text


def test_a_stream_is_kept_before_its_end_is_sent(ada: OpenAI):
    with ada.responses.stream(
        model=DEFAULT_MODEL, input="Say hello.", temperature=0, max_output_tokens=8
    ) as stream:
        final = [event for event in stream if event.type.startswith("response.")][-1].response
        assert ada.responses.retrieve(final.id) == final


def test_delete_and_what_others_get(server: Server, ada: OpenAI):
    first = ask(ada, "Say hello.")
    with signed_in(server, "bob_keeps") as bob:
        for call in (bob.responses.retrieve, bob.responses.delete):
            with pytest.raises(openai.NotFoundError):
                call(first.id)
        with pytest.raises(openai.BadRequestError) as refusal:
            ask(bob, "And?", previous_response_id=first.id)
        assert refusal.value.code == "previous_response_not_found"
        assert refusal.value.param == "previous_response_id"
    ada.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        ada.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError):
        ask(ada, "And?", previous_response_id=first.id)


def test_a_stranger_is_answered_and_nothing_is_kept(server: Server):
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as stranger:
        answer = ask(stranger, "Say hello.")
        assert answer.store is False
        with pytest.raises(openai.NotFoundError):
            stranger.responses.retrieve(answer.id)


def test_kept_across_a_restart_and_expired_at_a_start(tmp_path: Path):
    with running_server(tmp_path) as server, signed_in(server, "ada") as client:
        kept, old = ask(client, "Say hello."), ask(client, "Say goodbye.")
    with sqlite3.connect(tmp_path / "llmhost.db") as database:
        aged = "UPDATE responses SET created_at = '2020-01-01 00:00:00' WHERE id = ?"
        changed = database.execute(aged, (bytes.fromhex(old.id.removeprefix("resp_")),))
        assert changed.rowcount == 1
    with running_server(tmp_path) as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key=client.api_key, max_retries=0)
        assert client.responses.retrieve(kept.id).output_text == kept.output_text
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(old.id)
        ask(client, "And?", previous_response_id=kept.id)
    with sqlite3.connect(tmp_path / "llmhost.db") as database:
        [(left,)] = database.execute("SELECT count(*) FROM responses")
    assert left == 2, "the one that expired is deleted, and not only hidden"


def chat_line(custom_id: str, text: str, **fields) -> dict:
    body = {
        "model": DEFAULT_MODEL,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 40,
        **fields,
    }
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def test_a_batch_goes_on_after_a_restart(tmp_path: Path):
    """Six lines, of which one is bad; the server ends while it answers one of the others."""
    cities = ("Japan", "France", "Italy", "Spain", "Egypt")
    lines = [chat_line(city, f"What is the capital of {city}?") for city in cities[:-1]]
    # takes seconds: enough to see that the first line is answered and to end the server
    lines.append(chat_line(cities[-1], "Tell a very long story about Egypt.", max_tokens=250))
    lines.insert(2, chat_line("bad", "Hi", temperature=9))
    content = "\n".join(json.dumps(line) for line in lines).encode()
    settings = {"batch_lines_at_once": 1, "drain_timeout_s": 0}
    with running_server(tmp_path, **settings) as server:
        client = signed_in(server, "ada")
        file = client.files.create(file=("in.jsonl", content), purpose="batch")
        assert (file.bytes, file.filename) == (len(content), "in.jsonl")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

        def begun():
            found = client.batches.retrieve(batch.id)
            return found if found.request_counts.completed >= 1 else None

        running = wait_for(begun, "no line was answered", 120)
    assert running.status == "in_progress", "the server was to end in the middle"
    with running_server(tmp_path, **settings) as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key=client.api_key, max_retries=0)

        def over():
            found = client.batches.retrieve(batch.id)
            return found if found.status == "completed" else None

        done = wait_for(over, "the batch did not end", 120)
        counts = done.request_counts
        assert (counts.total, counts.completed, counts.failed) == (6, 5, 1)
        assert [one.id for one in client.batches.list()] == [batch.id]
        told = [json.loads(one) for one in client.files.content(done.output_file_id).iter_lines()]
        assert [one["custom_id"] for one in told] == list(cities), "each once, in their order"
        asked = [line for line in lines if line["custom_id"] != "bad"]
        for one, line in zip(told, asked, strict=True):
            choice = client.chat.completions.create(**line["body"]).choices[0]
            made = one["response"]["body"]["choices"][0]
            assert made["message"]["content"] == choice.message.content
        [bad] = map(json.loads, client.files.content(done.error_file_id).iter_lines())
        assert (bad["custom_id"], bad["response"]["status_code"]) == ("bad", 400)
        assert {one.id for one in client.files.list()} == {
            file.id,
            done.output_file_id,
            done.error_file_id,
        }
        assert client.files.delete(file.id).deleted


def test_an_upload_that_hangs_up_leaves_nothing(server: Server, ada: OpenAI):
    key = f"Authorization: Bearer {ada.api_key}\r\n"
    head = f"POST /v1/files HTTP/1.1\r\nHost: x\r\n{key}Content-Length: 50000000\r\n"
    head += "Content-Type: multipart/form-data; boundary=xx\r\n\r\n"
    part = '--xx\r\nContent-Disposition: form-data; name="file"; filename="gone.jsonl"\r\n\r\n'
    with server.connect() as connection:
        connection.sendall((head + part).encode() + b"x" * 3_000_000)
    server.wait_for_line("path=/v1/files status=")
    assert [file for file in ada.files.list() if file.filename != "in.jsonl"] == []
    with sqlite3.connect(server.log.parent / "llmhost.db") as database:
        [(left,)] = database.execute("SELECT count(*) FROM files")
    assert left == 0
