import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from litestar.exceptions import LitestarException

from app.contract.generation import Finished, ReasoningDelta, TextDelta
from app.dialects.neptun.keeping import ChatKeeper, KeptGeneration
from app.dialects.neptun.wire import BrokenOff
from app.errors import (
    ContextOverflow,
    EngineFailure,
    ModelBroken,
    NoModelLoaded,
    Overloaded,
    ProviderUnavailable,
    RateLimited,
    ShuttingDown,
    UnknownModel,
)
from app.storage.chats import Quota
from tests.accounts_app import CHAT, HELLO, PASSWORD, Server, running
from tests.asgi_client import Answer
from tests.databases import KINDS
from tests.dialects.openai.scripted import ScriptedGeneration, end
from tests.fakes import FakeService


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path, kind=request.param) as server:
        yield server


async def stored(server: Server, token: str, chat_id: str = "1") -> list[dict[str, Any]]:
    """The messages of a chat; none: there is no such chat."""
    await server.finish()
    answer = await server.ask("GET", f"/api/chats/{chat_id}", token=token)
    if answer.status == 404:
        return []
    assert answer.status == 200, answer.json
    messages: list[dict[str, Any]] = answer.json["messages"]
    return messages


def shown(messages: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    return [(message["role"], message["content"], message["complete"]) for message in messages]


async def test_the_reply_is_the_text_itself_in_a_stream(server: Server):
    token = await server.token("ada")
    answer = await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token)
    assert (answer.status, answer.body) == (200, b"Hello you")
    assert len([chunk for chunk in answer.chunks if chunk]) > 1, "one chunk is no stream"
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" not in answer.headers


async def test_every_chunk_ends_on_a_whole_character(tmp_path: Path):
    text = "ä😀日本語 👩‍👩‍👧 é"
    halves = [[byte] for byte in text.encode()]
    assert len(halves) > len(text)
    async with running(tmp_path, FakeService(*text)) as server:
        token = await server.token("ada")
        answer = await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token)
    assert "".join(chunk.decode() for chunk in answer.chunks) == text


async def test_event_stream_for_those_who_ask(server: Server):
    answer = await server.ask(
        "POST",
        f"{CHAT}?chat_id=1",
        HELLO,
        token=await server.token("ada"),
        headers={"accept": "text/event-stream"},
    )
    events = answer.body.decode().removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert "".join(event.removeprefix("data: ") for event in events[:-1]) == "Hello you"


async def test_data_stream_of_the_ai_sdk(tmp_path: Path):
    text = 'line one\nline "two" \\ 😀'
    async with running(tmp_path, FakeService(*text)) as server:
        path = f"{CHAT}?chat_id=1&stream_protocol=data"
        answer = await server.ask("POST", path, HELLO, token=await server.token("ada"))
    assert answer.headers["x-vercel-ai-data-stream"] == "v1"
    lines = answer.body.decode().splitlines()
    assert all(line.startswith("0:") for line in lines)
    assert "".join(json.loads(line[2:]) for line in lines) == text


async def test_question_and_reply_are_kept_with_the_model(server: Server):
    token = await server.token("ada")
    conversation = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "reply"},
        {"role": "user", "content": "second"},
    ]
    await server.ask("POST", f"{CHAT}?chat_id=1", {"messages": conversation}, token=token)
    messages = await stored(server, token)
    assert shown(messages) == [("user", "second", True), ("assistant", "Hello you", True)]
    assert [message["model"] for message in messages] == [None, "test/fake"]
    assert "first" in server.service.prompts()[0]


async def test_a_conversation_without_a_question_keeps_its_reply(server: Server):
    token = await server.token("ada")
    body = {"messages": [{"role": "assistant", "content": "Once"}]}
    await server.ask("POST", f"{CHAT}?chat_id=1", body, token=token)
    assert shown(await stored(server, token)) == [("assistant", "Hello you", True)]


async def test_turns_follow_each_other(server: Server):
    token = await server.token("ada")
    for _ in range(3):
        await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token)
    assert [message["role"] for message in await stored(server, token)] == ["user", "assistant"] * 3


async def test_the_reply_is_on_disk_before_its_end_is_sent(server: Server):
    token = await server.token("ada")
    kept: list[int] = []

    async def look(answer: Answer) -> None:
        if answer.body == b"Hello you" and not kept:
            # the last piece is here, the end is not: the next chunk, empty, comes after the commit
            kept.append(len(await stored(server, token)))

    answer = await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token, on_chunk=look)
    assert answer.complete
    assert kept
    assert len(await stored(server, token)) == 2


async def test_what_a_model_thinks_is_no_end_of_its_reply(server: Server):
    token = await server.token("ada")
    owner = await server.auth.accounts.named("ada")
    keeper = ChatKeeper(server.database, Quota(chats=0, num_bytes=0))
    said = ScriptedGeneration([ReasoningDelta("Hm."), TextDelta("4"), end()])
    kept = KeptGeneration(said, keeper, user_id=owner.id, chat_id="1", question="2 + 2?")
    assert [type(event) async for event in kept] == [ReasoningDelta, TextDelta, Finished]
    assert shown(await stored(server, token)) == [
        ("user", "2 + 2?", True),
        ("assistant", "4", True),
    ]


async def test_minus_one_keeps_nothing(server: Server):
    token = await server.token("ada")
    answer = await server.ask("POST", f"{CHAT}?chat_id=-1", HELLO, token=token)
    assert answer.body == b"Hello you"
    assert (await server.ask("GET", "/api/chats", token=token)).json == {"chats": []}


@pytest.mark.parametrize("protocol", ["", "&stream_protocol=data"])
@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
async def test_a_failure_breaks_the_stream_off_and_keeps_what_there_was(
    tmp_path: Path, protocol: str, accept: str
):
    async with running(tmp_path, FakeService("Hel", EngineFailure("it broke"))) as server:
        token = await server.token("ada")
        answers: list[Answer] = []
        path, headers = f"{CHAT}?chat_id=1{protocol}", {"accept": accept}
        with pytest.raises(LitestarException) as broken:
            await server.ask(
                "POST", path, HELLO, token=token, headers=headers, on_chunk=answers.append
            )
        assert isinstance(broken.value.__cause__, BrokenOff)
        assert answers, "something must have been streamed before"
        assert not answers[-1].complete
        assert shown(await stored(server, token)) == [
            ("user", "Hello", True),
            ("assistant", "Hel", False),
        ]
        assert server.service.engine.in_use == 0


async def test_a_client_that_goes_leaves_what_was_streamed(tmp_path: Path):
    async with running(tmp_path, FakeService("Hel", asyncio.Event())) as server:
        token, gone = await server.token("ada"), asyncio.Event()
        path = f"{CHAT}?chat_id=1"
        answer = await server.ask(
            "POST", path, HELLO, token=token, gone=gone, on_chunk=lambda _: gone.set()
        )
        assert not answer.complete
        assert shown(await stored(server, token)) == [
            ("user", "Hello", True),
            ("assistant", "Hel", False),
        ]
        assert server.service.engine.in_use == 0


async def test_a_request_that_is_cancelled_leaves_what_was_streamed(tmp_path: Path):
    async with running(tmp_path, FakeService("Hel", asyncio.Event())) as server:
        token, streamed = await server.token("ada"), asyncio.Event()
        request = asyncio.create_task(
            server.ask(
                "POST",
                f"{CHAT}?chat_id=1",
                HELLO,
                token=token,
                on_chunk=lambda _: streamed.set(),
            )
        )
        await streamed.wait()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert [complete for *_, complete in shown(await stored(server, token))] == [True, False]
        assert server.service.engine.in_use == 0


async def test_a_failure_before_the_first_byte_is_a_status_and_keeps_nothing(tmp_path: Path):
    async with running(tmp_path, FakeService(EngineFailure("it broke"))) as server:
        token = await server.token("ada")
        answer = await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token)
        assert (answer.status, answer.json) == (
            500,
            {"statusCode": 500, "statusMessage": "Internal Server Error"},
        )
        assert await stored(server, token) == []


async def test_a_user_deleted_while_generating_leaves_nothing(tmp_path: Path):
    going_on = asyncio.Event()
    async with running(tmp_path, FakeService("Hel", going_on, "lo")) as server:
        token = await server.token("ada")

        async def delete(_: Answer) -> None:
            if not going_on.is_set():
                await server.ask("POST", "/me/delete", {"password": PASSWORD}, token=token)
                going_on.set()

        answer = await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token, on_chunk=delete)
        assert answer.complete
        await server.register("ada")
        token = (await server.login("ada")).json["access_token"]
        assert await stored(server, token) == []


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UnknownModel("a/b"), 400, "Invalid model name or publisher"),
        (NoModelLoaded(), 400, "Service not available anymore."),
        (ModelBroken("it lacks a file"), 400, "Service not available anymore."),
        (ProviderUnavailable("no CUDA"), 400, "Service not available anymore."),
        (Overloaded(64, 64), 400, "Service not available anymore."),
        (ShuttingDown(), 400, "Service not available anymore."),
        (RateLimited("too often", 3), 429, "Too Many Requests. too often"),
        (
            ContextOverflow(9120, 8192),
            400,
            (
                "Bad Request. prompt has 9120 tokens, "
                "the context is 8192 for prompt and answer together"
            ),
        ),
        (EngineFailure("it broke"), 500, "Internal Server Error"),
    ],
)
async def test_every_error_has_its_words_and_keeps_nothing(
    tmp_path: Path, error: Exception, status: int, words: str, monkeypatch: pytest.MonkeyPatch
):
    async def start(*_: object):
        raise error

    async with running(tmp_path) as server:
        monkeypatch.setattr(server.service, "start", start)
        token = await server.token("ada")
        answer = await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token)
        assert (answer.status, answer.json) == (
            status,
            {"statusCode": status, "statusMessage": words},
        )
        assert answer.headers["content-type"] == "application/json"
        assert ("retry-after" in answer.headers) is hasattr(error, "retry_after_s")
        assert await stored(server, token) == []


async def test_an_unknown_pair_is_refused(server: Server):
    path = CHAT.replace("fake", "llama") + "?chat_id=1"
    answer = await server.ask("POST", path, HELLO, token=await server.token("ada"))
    assert (answer.status, answer.json["statusMessage"]) == (400, "Invalid model name or publisher")


@pytest.mark.parametrize(
    ("query", "body", "words"),
    [
        ("", HELLO, "Bad Request. chat_id is missing, expected string, length >= 1 and length <="),
        (f"?chat_id={'x' * 129}", HELLO, "Bad Request. chat_id is 'xxx"),
        ("?chat_id=", HELLO, "Bad Request. chat_id is '', expected string, length >= 1 and"),
        ("?chat_id=%00", HELLO, r"Bad Request. chat_id is '\x00', expected a text without NUL"),
        (
            "?chat_id=1&stream_protocol=xml",
            HELLO,
            "Bad Request. stream_protocol is 'xml', expected 'data' or 'text'",
        ),
        ("?chat_id=%ff", HELLO, "Bad Request. the query string is not UTF-8"),
        (f"?chat_id=1{'&a=1' * 100}", HELLO, "Bad Request. the query string is not UTF-8, or has"),
        (f"?chat_id={'x' * 20_000}", HELLO, "Bad Request. the query string has 20008 bytes"),
        ("?chat_id=1", {}, "Bad Request. messages is missing"),
        ("?chat_id=1", {"messages": []}, "Bad Request. messages is []"),
        (
            "?chat_id=1",
            {"messages": [{"role": "system", "content": "x"}]},
            "Bad Request. messages[0].role is 'system', expected 'assistant' or 'user'",
        ),
        (
            "?chat_id=1",
            {"messages": [*HELLO["messages"], {"role": "user", "content": " \n"}]},
            r"Bad Request. messages[1].content is ' \n', expected more than white space",
        ),
        ("?chat_id=1", [], "Bad Request. body is '[]'"),
    ],
)
async def test_a_wrong_query_or_body_is_refused_by_name(
    server: Server, query: str, body: object, words: str
):
    answer = await server.ask("POST", f"{CHAT}{query}", body, token=await server.token("ada"))
    assert (answer.status, answer.json["statusCode"]) == (400, 400)
    assert answer.json["statusMessage"].startswith(words)


async def test_paths_and_methods_that_are_not_there_have_neptuns_envelope(server: Server):
    for method, path, status in (("GET", "/api/nothing", 404), ("GET", CHAT, 405)):
        answer = await server.ask(method, path)
        assert answer.status == answer.json["statusCode"] == status


async def test_no_text_in_the_path_is_a_fault_of_ours(server: Server):
    token = await server.token("ada")
    for name in ("\0", "\ufffd", "x" * 10_000, "0" * 32):
        for method, body in (("GET", None), ("PATCH", {"title": "x"}), ("DELETE", None)):
            answer = await server.ask(method, f"/api/chats/{name}", body, token=token)
            assert answer.status == 404


async def test_chats_are_listed_read_renamed_and_deleted(server: Server):
    token = await server.token("ada")
    for chat_id in ("1", "2", "3"):
        body = {"messages": [{"role": "user", "content": f"Question\n{chat_id} " + "x" * 300}]}
        await server.ask("POST", f"{CHAT}?chat_id={chat_id}", body, token=token)
    await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token)

    chats = (await server.ask("GET", "/api/chats", token=token)).json["chats"]
    assert [chat["chat_id"] for chat in chats] == ["1", "3", "2"], "the last used first"
    assert chats[0]["title"] == ("Question 1 " + "x" * 300)[:200]
    page = await server.ask("GET", "/api/chats?limit=1&offset=1", token=token)
    assert page.json["chats"] == chats[1:2]

    by_id = await server.ask("GET", f"/api/chats/{chats[0]['id']}", token=token)
    by_chat_id = await server.ask("GET", "/api/chats/1", token=token)
    assert by_id.json == by_chat_id.json
    assert len(by_id.json["messages"]) == 4

    answer = await server.ask("PATCH", "/api/chats/1", {"title": "New"}, token=token)
    assert (answer.status, answer.json["title"]) == (200, "New")
    answer = await server.ask("PATCH", "/api/chats/1", {"title": ""}, token=token)
    assert answer.status == 400

    answer = await server.ask("DELETE", "/api/chats/1", token=token)
    assert (answer.status, answer.body) == (204, b"")
    for method in ("GET", "DELETE"):
        answer = await server.ask(method, "/api/chats/1", token=token)
        assert (answer.status, answer.json) == (
            404,
            {"statusCode": 404, "statusMessage": "Not Found. there is no chat '1'"},
        )


@pytest.mark.parametrize(
    ("field", "value"), [("limit", 0), ("limit", 201), ("offset", -1), ("limit", "x")]
)
async def test_a_wrong_page_is_refused_by_name(server: Server, field: str, value: object):
    path = f"/api/chats?{field}={value}"
    answer = await server.ask("GET", path, token=await server.token("ada"))
    assert answer.status == 400
    assert answer.json["statusMessage"].startswith(
        f"Bad Request. {field} is '{value}', expected int"
    )


@pytest.mark.parametrize("chat_id", ["a/b", "..", "日本 語", "%2F", "a" * 128, "123", "1?2#3"])
async def test_a_chat_of_any_name_can_be_found_by_its_id(server: Server, chat_id: str):
    token = await server.token("ada")
    path = f"{CHAT}?chat_id={quote(chat_id, safe='')}"
    assert (await server.ask("POST", path, HELLO, token=token)).status == 200
    [chat] = (await server.ask("GET", "/api/chats", token=token)).json["chats"]
    assert chat["chat_id"] == chat_id
    assert len(await stored(server, token, chat["id"])) == 2


async def test_every_route_is_documented_with_its_parameters_and_refusals(server: Server):
    paths = server.app.openapi_schema.to_schema()["paths"]
    chat = paths["/api/ai/huggingface/{model_publisher}/{model_name}/chat"]["post"]
    parameters = {parameter["name"]: parameter for parameter in chat["parameters"]}
    assert parameters["chat_id"]["required"]
    assert parameters["chat_id"]["schema"]["maxLength"] == 128
    assert "messages" in chat["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert list(chat["responses"]["200"]["content"]) == ["text/event-stream"]
    for path, operations in paths.items():
        if path.startswith(("/api/ai/", "/api/chats")):
            for operation in operations.values():
                assert operation["security"] == [{"bearer": []}, {"api_key": []}]
                for status in {"400", "401"} & operation["responses"].keys():
                    [content] = operation["responses"][status]["content"].values()
                    assert content["schema"] == {"$ref": "#/components/schemas/Refusal"}


async def test_a_chat_without_room_is_refused_with_the_numbers_before_its_reply(tmp_path: Path):
    async with running(tmp_path, chats_per_user=1) as server:
        token, bob = await server.token("ada"), await server.token("bob")
        assert (await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token)).status == 200
        begun = len(server.service.engine.submitted)
        answer = await server.ask("POST", f"{CHAT}?chat_id=2", HELLO, token=token)
        assert answer.status == 400
        assert answer.json["statusMessage"] == (
            "Bad Request. there would be 2 chats, at most 1 are kept: delete a chat first, "
            "or send chat_id=-1 to keep nothing"
        )
        assert len(server.service.engine.submitted) == begun, "no reply was made"
        for chat_id, sent in (("1", token), ("-1", token), ("2", bob)):
            path = f"{CHAT}?chat_id={chat_id}"
            assert (await server.ask("POST", path, HELLO, token=sent)).status == 200
        assert len(await stored(server, token)) == 4


async def test_a_reply_that_was_begun_is_kept_although_it_is_too_long(tmp_path: Path):
    reply = "x" * 1_000_001
    async with running(tmp_path, FakeService(reply), chat_mb_per_user=1) as server:
        token = await server.token("ada")
        answer = await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token)
        assert (answer.status, len(answer.body)) == (200, len(reply))
        assert (await stored(server, token))[1]["content"] == reply
        answer = await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token)
        assert answer.status == 400
        assert "bytes of chats, at most 1000000 are kept" in answer.json["statusMessage"]


async def test_a_long_chat_is_written_in_pieces_and_holds_no_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("app.dialects.neptun.routes.AT_ONCE", 2)
    token = await server.token("ada")
    for _ in range(3):
        await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token)
    open_reads: list[int] = []

    def look(_: Answer) -> None:
        open_reads.append(sum(server.database._reads._uses.values()))

    answer = await server.ask("GET", "/api/chats/1", token=token, on_chunk=look)
    assert len([chunk for chunk in answer.chunks if chunk]) == 5, "the head, three pages, the end"
    assert [message["role"] for message in answer.json["messages"]] == ["user", "assistant"] * 3
    assert answer.headers["content-type"] == "application/json"
    assert open_reads == [0] * len(open_reads)


async def test_nobody_reads_on_for_a_client_that_has_gone(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("app.dialects.neptun.routes.AT_ONCE", 1)
    token, gone = await server.token("ada"), asyncio.Event()
    for _ in range(5):
        await server.ask("POST", f"{CHAT}?chat_id=1", HELLO, token=token)
    answer = await server.ask(
        "GET", "/api/chats/1", token=token, gone=gone, on_chunk=lambda _: gone.set()
    )
    assert not answer.complete


KEPT = {
    "title": "Kept",
    "messages": [
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": "half", "model": "a/b", "complete": False},
    ],
    "document": '{"nodes": {}}',
}


async def test_a_chat_held_elsewhere_is_kept_whole_and_read_back(server: Server):
    token = await server.token("ada")
    for document in ('{"nodes": {}}', None):
        answer = await server.ask(
            "PUT", "/api/chats/mine", {**KEPT, "document": document}, token=token
        )
        assert (answer.status, answer.json["title"]) == (200, "Kept")
        read = (await server.ask("GET", "/api/chats/mine", token=token)).json
        assert shown(read["messages"]) == [("user", "question", True), ("assistant", "half", False)]
        assert [message["model"] for message in read["messages"]] == [None, "a/b"]
        assert read["document"] == document
    # by the server's own id too, and nobody else's
    key = answer.json["id"]
    renamed = await server.ask("PUT", f"/api/chats/{key}", {**KEPT, "title": "New"}, token=token)
    assert (renamed.json["chat_id"], renamed.json["title"]) == ("mine", "New")
    other = await server.token("bob")
    theirs = await server.ask("PUT", f"/api/chats/{key}", KEPT, token=other)
    assert theirs.json["id"] != key
    assert len((await server.ask("GET", "/api/chats", token=token)).json["chats"]) == 1


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("mine", {**KEPT, "title": ""}, "title"),
        ("mine", {**KEPT, "messages": [{"role": "system", "content": ""}]}, "messages[0].role"),
        ("mine", {**KEPT, "document": {}}, "document"),
        ("x" * 129, KEPT, "chat_id"),
        ("a\0b", KEPT, "chat_id"),
    ],
)
async def test_a_chat_that_can_not_be_kept_is_refused_by_name(
    server: Server, path: str, body: object, word: str
):
    answer = await server.ask("PUT", f"/api/chats/{path}", body, token=await server.token("ada"))
    assert answer.status == 400
    assert word in answer.json["statusMessage"]
