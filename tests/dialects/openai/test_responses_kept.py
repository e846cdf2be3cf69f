"""Responses that are kept: for whom, for how long, and what goes on from them."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import func, select, update

from app.contract.generation import ReasoningDelta, TextDelta, ToolCallDelta
from app.dialects.accounts import routes as accounts
from app.dialects.locallab import routes as locallab
from app.dialects.openai import routes as openai
from app.dialects.openai.responses import kept as keeping
from app.dialects.openai.responses.kept import ResponseKeeper
from app.errors import ContextOverflow, EngineFailure
from app.storage.models import StoredResponse
from tests.accounts_app import Server
from tests.asgi_client import Answer
from tests.databases import KINDS, current_database
from tests.dialects.openai.scripted import ScriptedModels, ScriptedService, end, logprob
from tests.hosts import CHEAP, app_over, host_over

RESPONSES = "/v1/responses"
IGNORED = "x-llmhost-ignored"
MIB = "x" * 1_000_000


@pytest.fixture(params=KINDS)
async def database(request, tmp_path) -> AsyncIterator:
    async with current_database(request.param, tmp_path) as database:
        yield database


def serve(database, *scripts, **settings) -> Server:
    service = ScriptedService(*scripts)
    host = host_over(service, ScriptedModels(), database=database, **settings)
    return Server(app_over(host, [locallab, accounts, openai]), host.auth, database, service)


async def make(server: Server, token: str = "", /, **fields) -> Answer:
    return await server.ask("POST", RESPONSES, {"input": "Hi", **fields}, token=token)


async def kept_id(server: Server, token: str, /, **fields) -> str:
    answer = await make(server, token, **fields)
    assert (answer.status, answer.json["store"]) == (200, True), answer.body
    return answer.json["id"]


def said(server: Server) -> list[tuple[str, str]]:
    """The conversation that the last request was made of."""
    messages = server.service.requests[-1].messages
    return [(turn.role, "\n".join(part.text for part in turn.content)) for turn in messages]


def error_of(answer: Answer) -> tuple[int, str, str | None]:
    error = answer.json["error"]
    assert error["type"] == "invalid_request_error"
    return answer.status, error["code"], error["param"]


async def test_three_turns_go_on_from_each_other_without_their_instructions(database):
    server = serve(database)
    ada = await server.token("ada")
    first = await kept_id(server, ada, instructions="Be brief.")
    second = await make(server, ada, input="And?", previous_response_id=first)
    assert second.json["previous_response_id"] == first
    third = await make(
        server,
        ada,
        input=[{"role": "user", "content": "So?"}],
        instructions="Be long.",
        previous_response_id=second.json["id"],
        stream=True,
    )
    assert said(server) == [
        ("system", "Be long."),
        *(("user", "Hi"), ("assistant", "Hello")),
        *(("user", "And?"), ("assistant", "Hello")),
        ("user", "So?"),
    ]
    completed = json.loads(third.body.decode().strip().rpartition("data: ")[2])["response"]
    read = await server.ask("GET", f"{RESPONSES}/{completed['id']}", token=ada)
    assert read.json == completed, "what is kept is what was answered"
    assert completed["store"] is True


async def test_one_response_can_have_two_that_go_on_from_it(database):
    server = serve(database)
    ada = await server.token("ada")
    first = await kept_id(server, ada)
    for text in ("left", "right"):
        await kept_id(server, ada, input=text, previous_response_id=first)
        assert said(server) == [("user", "Hi"), ("assistant", "Hello"), ("user", text)]


async def test_calls_and_thoughts_are_part_of_the_conversation(database):
    call = [ToolCallDelta(0, "c1", "f", ""), ToolCallDelta(0, None, None, '{"a":1}'), end()]
    thought = [ReasoningDelta("Hm."), TextDelta("Hello"), end()]
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    server = serve(database, call)
    ada = await server.token("ada")
    first = await kept_id(server, ada, tools=tools)
    result = {"type": "function_call_output", "call_id": "c1", "output": "7"}
    server.service._scripts = [thought]
    second = await kept_id(server, ada, input=[result], previous_response_id=first)
    user, assistant, tool = server.service.requests[-1].messages
    [made] = assistant.tool_calls
    assert (made.id, made.name, made.arguments) == ("c1", "f", '{"a":1}')
    assert (tool.role, tool.tool_call_id) == ("tool", "c1")
    await kept_id(server, ada, input="So?", previous_response_id=second)
    assert server.service.requests[-1].messages[-2].reasoning == "Hm."
    assert user.role == "user"


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_is_kept_without_an_account(database, stream):
    server = serve(database)
    answer = await make(server, stream=stream)
    assert b'"store":false' in answer.body
    assert b'"store":true' not in answer.body
    assert IGNORED not in answer.headers, "leaving it out asks for nothing"
    asked = await make(server, store=True, stream=stream)
    assert (asked.status, asked.headers[IGNORED]) == (200, "store")
    assert b'"store":true' not in asked.body
    strict = serve(database, strict_parameters=True)
    assert (await make(strict)).status == 200
    assert error_of(await make(strict, store=True)) == (400, "unsupported_parameter", "store")


async def test_what_is_not_to_be_kept_is_not(database):
    server = serve(database)
    ada = await server.token("ada")
    answer = await make(server, ada, store=False)
    assert answer.json["store"] is False
    path = f"{RESPONSES}/{answer.json['id']}"
    assert error_of(await server.ask("GET", path, token=ada)) == (404, "not_kept", None)
    off = serve(database, response_days=0)
    assert (await make(off, ada)).json["store"] is False


async def test_of_another_users_response_nothing_is_said(database):
    server = serve(database)
    ada, bob = await server.token("ada"), await server.token("bob")
    response = await kept_id(server, ada)
    absent = "resp_" + "0" * 32
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        told = []
        for token in (bob, ""):
            for its_id in (response, absent):
                answer = await server.ask(method, f"{RESPONSES}/{its_id}{rest}", token=token)
                assert error_of(answer) == (404, "not_kept", None)
                told.append(answer.body.replace(its_id.encode(), b"ID"))
        assert len(set(told)) == 1, told
    wanted = (400, "previous_response_not_found", "previous_response_id")
    for token in (bob, ""):
        assert error_of(await make(server, token, previous_response_id=response)) == wanted
    count = ("POST", f"{RESPONSES}/input_tokens", {"input": "x", "previous_response_id": response})
    assert error_of(await server.ask(*count, token=bob)) == wanted
    assert (await server.ask(*count, token=ada)).status == 200
    assert len(server.service.tokenized[-1][0]) == 3
    read = await server.ask("GET", f"{RESPONSES}/{response}", token=ada)
    assert (read.status, read.headers["cache-control"]) == (200, "no-store")


@pytest.mark.parametrize(
    "its_id",
    ["resp_1", "x", "resp_" + "0" * 31 + "G", "resp_" + "A" * 32, "%00", "msg_" + "0" * 32],
)
async def test_an_id_of_another_shape_is_of_no_response(database, its_id):
    server = serve(database)
    ada = await server.token("ada")
    answer = await server.ask("GET", f"{RESPONSES}/{its_id}", token=ada)
    assert error_of(answer) == (404, "not_kept", None)


async def test_a_deleted_turn_ends_the_conversations_through_it(database):
    server = serve(database)
    ada = await server.token("ada")
    first = await kept_id(server, ada)
    second = await kept_id(server, ada, previous_response_id=first)
    gone = await server.ask("DELETE", f"{RESPONSES}/{first}", token=ada)
    assert gone.json == {"id": first, "object": "response", "deleted": True}
    assert (await server.ask("DELETE", f"{RESPONSES}/{first}", token=ada)).status == 404
    assert (await server.ask("GET", f"{RESPONSES}/{second}", token=ada)).status == 200
    answer = await make(server, ada, previous_response_id=second)
    assert error_of(answer)[:2] == (400, "previous_response_not_found")
    assert first in answer.json["error"]["message"], "it says which one is missing"


async def test_an_input_that_is_refused_by_its_length_is_not_written_out_for_keeping(
    database, monkeypatch
):
    """Thousands of items took half a second of the event loop, for an answer of 400."""
    server = serve(database)
    ada = await server.token("ada")
    written = []
    real = keeping._listed

    async def listed(given):
        written.append(len(given))
        return await real(given)

    async def refuse(*_, **__):
        raise ContextOverflow(9000, 8192)

    monkeypatch.setattr(keeping, "_listed", listed)
    many = [{"role": "user", "content": "a"}] * 1000
    kept = await kept_id(server, ada, input=many)
    assert written == [1000]
    page = await server.ask("GET", f"{RESPONSES}/{kept}/input_items?limit=100", token=ada)
    assert len({item["id"] for item in page.json["data"]}) == 100
    monkeypatch.setattr(server.service, "start_batch", refuse)
    assert (await make(server, ada, input=many, store=True)).status == 400
    assert written == [1000]


async def test_the_values_inside_input_items_are_not_read_for_a_page(database, monkeypatch):
    """Ten megabytes of empty arrays would fill 500 MB and hold the event loop for a second."""
    server = serve(database)
    ada = await server.token("ada")
    part = {"type": "input_text", "text": "Hi", "annotations": [[], [[{}]]]}
    kept = await kept_id(server, ada, input=[{"role": "user", "content": [part]}])
    read = []
    real = ResponseKeeper.input_items

    async def input_items(*args):
        read.extend(items := await real(*args))
        return items

    monkeypatch.setattr(ResponseKeeper, "input_items", input_items)
    listed = (await server.ask("GET", f"{RESPONSES}/{kept}/input_items", token=ada)).json
    assert [type(item) for item in read] == [msgspec.Raw]
    assert listed["data"][0]["content"] == [part]
    assert listed["first_id"] == listed["last_id"] == listed["data"][0]["id"]


async def test_input_items_in_pages_of_both_orders(database):
    server = serve(database)
    ada = await server.token("ada")
    given = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "id": "msg_mine"},
        {"role": "user", "content": [{"type": "input_text", "text": "c"}], "id": "msg_mine"},
    ]
    first = await kept_id(server, ada, input=given)
    second = await kept_id(server, ada, input="d", previous_response_id=first)

    async def page(query: str = "", of: str = second) -> dict:
        path = f"{RESPONSES}/{of}/input_items?{query}"
        return (await server.ask("GET", path, token=ada)).json

    def texts(found: dict) -> str:
        return "".join(item["content"][0]["text"][0] for item in found["data"])

    whole = await page("order=asc")
    assert (texts(whole), whole["has_more"], whole["object"]) == ("abcHd", False, "list")
    ids = [item["id"] for item in whole["data"]]
    assert len(set(ids)) == 5
    assert ids[1] == "msg_mine"
    assert whole["data"][1]["content"] == [{"type": "output_text", "text": "b", "annotations": []}]
    assert (whole["first_id"], whole["last_id"]) == (ids[0], ids[-1])
    assert texts(await page()) == "dHcba"
    assert texts(await page(of=first)) == "cba", "what was answered is no input"
    found = await page("limit=2")
    assert (texts(found), found["has_more"]) == ("dH", True)
    found = await page(f"limit=3&after={found['last_id']}")
    assert (texts(found), found["has_more"]) == ("cba", False)
    for query, param in (("limit=101", "limit"), ("order=up", "order"), ("after=x", "after")):
        assert (await page(query))["error"]["param"] == param


async def test_a_conversation_expires_as_a_whole_after_its_last_response(database):
    server = serve(database, response_days=30)
    ada = await server.token("ada")
    first = await kept_id(server, ada)
    second = await kept_id(server, ada, previous_response_id=first)
    alone = await kept_id(server, ada)

    async def age(response: str, days: float) -> None:
        then = datetime.now(UTC) - timedelta(days=days)
        async with database.write() as session:
            matches = StoredResponse.id == key_of(response)
            await session.execute(update(StoredResponse).where(matches).values(created_at=then))

    async def status(response: str) -> int:
        return (await server.ask("GET", f"{RESPONSES}/{response}", token=ada)).status

    await age(first, 40)
    await age(alone, 30.1)
    assert [await status(one) for one in (first, second, alone)] == [200, 200, 404]
    assert (await make(server, ada, previous_response_id=alone)).status == 400
    await age(second, 29.9)
    keeper = ResponseKeeper(database, msgspec.structs.replace(CHEAP, response_days=30))
    await keeper._sweeper.sweep()
    assert await count(database) == 2
    await age(second, 30.1)
    assert [await status(one) for one in (first, second)] == [404, 404]
    assert await count(database) == 2, "or the next line proves nothing"
    await keeper._sweeper.sweep()
    assert await count(database) == 0


async def test_the_quota_refuses_only_who_relies_on_being_kept(database):
    server = serve(database, responses_per_user=2, max_body_bytes=10**7)
    ada, bob = await server.token("ada"), await server.token("bob")
    first = await kept_id(server, ada)
    second = await kept_id(server, ada)
    full = (400, "quota_full", None)
    assert error_of(await make(server, ada, store=True)) == full
    assert error_of(await make(server, ada, previous_response_id=first)) == full
    asked = len(server.service.requests)
    answer = await make(server, ada)
    assert (answer.status, answer.json["store"]) == (200, False)
    assert len(server.service.requests) == asked + 1, "those that are refused are not made"
    assert (await make(server, ada, previous_response_id=first, store=False)).status == 200
    await kept_id(server, bob)
    await server.ask("DELETE", f"{RESPONSES}/{second}", token=ada)
    await kept_id(server, ada, store=True)
    server = serve(database, response_mb_per_user=1)
    answer = await make(server, ada, store=True, input=MIB)
    assert error_of(answer) == full
    assert "1000000 are kept" in answer.json["error"]["message"]


async def test_a_conversation_may_be_as_large_as_a_body(database):
    server = serve(database, max_body_bytes=20_000, max_body_values=2000)
    ada = await server.token("ada")
    last = await kept_id(server, ada, input="x" * 9_000)
    last = await kept_id(server, ada, input="x" * 9_000, previous_response_id=last)
    last = await kept_id(server, ada, input="x" * 9_000, previous_response_id=last)
    answer = await make(server, ada, previous_response_id=last)
    assert error_of(answer) == (400, "invalid_value", "previous_response_id")
    assert "20000 bytes" in answer.json["error"]["message"]
    many = [{"role": "user", "content": "x"}] * 30
    last = await kept_id(server, ada, input=many)
    last = await kept_id(server, ada, input=many, previous_response_id=last)
    last = await kept_id(server, ada, input=many, previous_response_id=last)
    answer = await make(server, ada, previous_response_id=last)
    assert error_of(answer) == (400, "invalid_value", "previous_response_id")
    assert "2000 values" in answer.json["error"]["message"]


async def test_a_response_that_fails_or_whose_client_goes_is_not_kept(database):
    server = serve(database, [TextDelta("Hel"), EngineFailure("broken")])
    ada = await server.token("ada")
    answer = await make(server, ada, stream=True)
    failed = json.loads(answer.body.decode().strip().rpartition("data: ")[2])["response"]
    assert (failed["status"], failed["store"]) == ("failed", False)
    assert (await make(server, ada)).status == 500
    assert await count(database) == 0


async def test_log_probabilities_are_answered_and_not_carried_on(database):
    script = [TextDelta("Hello", (logprob("Hello"),)), end()]
    server = serve(database, script)
    ada = await server.token("ada")
    first = await kept_id(server, ada, include=["message.output_text.logprobs"])
    read = (await server.ask("GET", f"{RESPONSES}/{first}", token=ada)).json
    assert read["output"][0]["content"][0]["logprobs"]
    second = await kept_id(server, ada, previous_response_id=first)
    items = (await server.ask("GET", f"{RESPONSES}/{second}/input_items", token=ada)).json["data"]
    assert "logprobs" not in json.dumps(items)


async def test_a_deleted_user_leaves_no_responses(database):
    server = serve(database)
    ada = await server.token("ada")
    await kept_id(server, ada)
    assert await count(database) == 1
    await server.auth.accounts.remove("ada")
    assert await count(database) == 0


async def test_cancelling_and_streaming_again_are_refused_with_the_reason(database):
    server = serve(database)
    ada = await server.token("ada")
    first = await kept_id(server, ada)
    answer = await server.ask("POST", f"{RESPONSES}/{first}/cancel", token=ada)
    assert (answer.status, answer.json["error"]["code"]) == (400, "bad_request")
    answer = await server.ask("GET", f"{RESPONSES}/{first}?stream=true", token=ada)
    assert error_of(answer) == (400, "unsupported_parameter", "stream")


def key_of(response: str) -> UUID:
    return UUID(response.removeprefix("resp_"))


async def count(database) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(StoredResponse))
