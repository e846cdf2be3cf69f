"""Files and batches: what comes out of each line, what goes wrong, and who sees any of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from app.contract.generation import NOBODY, TextDelta
from app.dialects.accounts import routes as accounts
from app.dialects.kit.application import assemble
from app.dialects.locallab import routes as locallab
from app.dialects.openai import routes as openai
from app.dialects.openai.batches import results as batch_results
from app.dialects.openai.batches.input import lines_of
from app.dialects.openai.batches.running import BatchRunner
from app.errors import Overloaded
from app.settings import Settings
from app.storage import batches
from app.storage.files import MAX_UPLOADS, UPLOAD_LIFE, FileWriter, delete_expired_files
from app.storage.models import Batch, BatchLine, FilePiece, StoredFile
from tests.accounts_app import Server
from tests.asgi_client import Answer
from tests.databases import KINDS, current_database
from tests.dialects.openai.scripted import HI, ScriptedModels, ScriptedService, end
from tests.fakes import MODEL_ID
from tests.hosts import host_over

CHAT = "/v1/chat/completions"
BODY = {"model": MODEL_ID, "messages": HI}
PATIENCE_S = 60.0


class Service(ScriptedService):
    """Keeps who asks, and refuses as often as it is told to."""

    def __init__(self, *scripts) -> None:
        super().__init__(*scripts)
        self.asking = []
        self.refusals = 0

    async def start_batch(self, requests, model_id=None, caller=NOBODY):
        self.asking.append(caller)
        if self.refusals:
            self.refusals -= 1
            raise Overloaded(64, 64, 0)
        made = await super().start_batch(requests, model_id, caller)
        self._scripts = [self._scripts[0] if len(self._scripts) == 1 else self._scripts[-1]]
        return made


@pytest.fixture(params=KINDS)
async def database(request, tmp_path) -> AsyncIterator:
    async with current_database(request.param, tmp_path) as database:
        yield database


@asynccontextmanager
async def serving(database, service=None, **settings) -> AsyncIterator[Server]:
    service = service or Service()
    host = host_over(service, ScriptedModels(), database=database, **settings)
    dialects = [package.dialect(host) for package in (locallab, accounts, openai)]
    app = assemble(host, dialects)
    await dialects[-1].open(app)
    try:
        yield Server(app, host.auth, database, service)
    finally:
        await dialects[-1].close()


def line(custom_id: object, **fields) -> dict:
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": BODY, **fields}


def form(content: bytes, purpose: str = "batch", **fields: str) -> tuple[bytes, dict]:
    parts = [
        f'--xx\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in {"purpose": purpose, **fields}.items()
    ]
    head = 'Content-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    body = b"".join(parts) + b"--xx\r\n" + head.encode() + content + b"\r\n--xx--\r\n"
    return body, {"content-type": "multipart/form-data; boundary=xx"}


async def upload(server: Server, token: str, content: bytes | list, **fields) -> Answer:
    if isinstance(content, list):
        content = b"\n".join(
            one if isinstance(one, bytes) else json.dumps(one).encode() for one in content
        )
    raw, headers = form(content, **fields)
    return await server.ask("POST", "/v1/files", raw=raw, headers=headers, token=token)


async def make(server: Server, token: str, lines: bytes | list, endpoint: str = CHAT) -> dict:
    uploaded = await upload(server, token, lines)
    assert uploaded.status == 200, uploaded.body
    body = {
        "input_file_id": uploaded.json["id"],
        "endpoint": endpoint,
        "completion_window": "24h",
        "metadata": {"a": "b"},
    }
    answer = await server.ask("POST", "/v1/batches", body, token=token)
    assert answer.status == 200, answer.body
    assert (answer.json["status"], answer.json["object"]) == ("validating", "batch")
    return answer.json


async def show(server: Server, token: str, batch: dict) -> dict:
    return (await server.ask("GET", f"/v1/batches/{batch['id']}", token=token)).json


async def until(server: Server, token: str, batch: dict, holds: Callable[[dict], bool]) -> dict:
    async with asyncio.timeout(PATIENCE_S):
        while not holds(found := await show(server, token, batch)):
            await asyncio.sleep(0.02)
    return found


async def ended(server: Server, token: str, batch: dict) -> dict:
    over = ("completed", "failed", "expired", "cancelled")
    return await until(server, token, batch, lambda found: found["status"] in over)


async def results(server: Server, token: str, file_id: str | None) -> list[dict]:
    if file_id is None:
        return []
    answer = await server.ask("GET", f"/v1/files/{file_id}/content", token=token)
    assert answer.status == 200, answer.body
    assert len(answer.body) == int(answer.headers["content-length"])
    return [json.loads(one) for one in answer.body.decode().splitlines()]


async def count(database, kind) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(kind))


async def test_each_line_is_answered_as_its_route_does_and_a_bad_one_is_an_error(database):
    lines = [
        line("good"),
        line("refused", body={**BODY, "temperature": 9}),
        b"",
        line("stranger", body={**BODY, "model": "no/such"}),
        line("other path", url="/v1/completions"),
        line("streams", body={**BODY, "stream": True}),
        line("good"),
        line(7),
        line("method", method="GET"),
        b'{"custom_id": "broken"',
        b'["no object"]',
        line("last"),
    ]
    async with serving(database) as server:
        ada = await server.token("ada")
        batch = await ended(server, ada, await make(server, ada, lines))
        assert (batch["status"], batch["metadata"]) == ("completed", {"a": "b"})
        assert batch["request_counts"] == {"total": 11, "completed": 2, "failed": 9}
        stamps = ["created_at", "in_progress_at", "finalizing_at", "completed_at", "expires_at"]
        times = [batch[stamp] for stamp in stamps]
        assert times == sorted(times)
        good = await results(server, ada, batch["output_file_id"])
        assert [one["custom_id"] for one in good] == ["good", "last"]
        plain = (await server.ask("POST", CHAT, BODY, token=ada)).json
        for one in good:
            assert one["id"].startswith("batch_req_")
            assert one["error"] is None
            assert one["response"]["status_code"] == 200
            assert one["response"]["request_id"].startswith("req_")
            told = one["response"]["body"]
            assert {**told, "id": plain["id"], "created": plain["created"]} == plain
        bad = await results(server, ada, batch["error_file_id"])
        asked = {one["custom_id"]: one["response"] for one in bad if one["response"]}
        assert asked["refused"]["status_code"] == 400
        assert asked["refused"]["body"]["error"]["param"] == "temperature"
        assert asked["stranger"]["status_code"] == 404
        assert len(asked) == 2
        not_asked = [
            (one["custom_id"], one["error"]["code"]) for one in bad if one["response"] is None
        ]
        assert not_asked == [
            ("other path", "invalid_url"),
            ("streams", "invalid_value"),
            ("good", "duplicate_custom_id"),
            (None, "invalid_json_line"),
            ("method", "invalid_method"),
            (None, "invalid_json_line"),
            (None, "invalid_json_line"),
        ]
        assert "line 7" in next(e["error"]["message"] for e in bad if e["custom_id"] == "good")
        assert await count(database, BatchLine) == 0, "the files have them"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\x89PNG\r\n\x1a\n\xff\x00" * 1000, "invalid_json_line"),
        (b"hello", "invalid_json_line"),
        (b"", "empty_file"),
        (b"\n \n", "empty_file"),
        (json.dumps(line("x", url="/v1/models")).encode(), "invalid_url"),
        (b"[" * 10_000, "invalid_json_line"),
        (json.dumps(line("x" * 513)).encode(), "invalid_custom_id"),
    ],
)
async def test_an_input_with_nothing_to_ask_fails(database, content, code):
    async with serving(database) as server:
        ada = await server.token("ada")
        batch = await ended(server, ada, await make(server, ada, content))
        assert batch["status"] == "failed"
        assert batch["failed_at"] >= batch["created_at"]
        assert {error["code"] for error in batch["errors"]["data"]} == {code}
        assert batch["output_file_id"] is batch["error_file_id"] is None
        assert server.service.asking == []
        assert await count(database, BatchLine) == 0


async def test_too_many_lines_and_lines_that_are_too_long(database):
    small = json.dumps({"custom_id": "%d", "method": "POST", "url": CHAT, "body": {}})
    async with serving(database, max_body_bytes=100_000) as server:
        ada = await server.token("ada")
        many = "\n".join(small % number for number in range(100_000)).encode()
        batch = await ended(server, ada, await make(server, ada, many))
        assert batch["status"] == "failed"
        [error] = batch["errors"]["data"]
        assert (error["code"], "50000" in error["message"]) == ("too_many_requests", True)
        assert await count(database, BatchLine) == 0
        long = {"model": MODEL_ID, "messages": [{"role": "user", "content": "x" * 10_000_000}]}
        lines = [line("long", body=long), line("short")]
        batch = await ended(server, ada, await make(server, ada, lines))
        assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
        [bad] = await results(server, ada, batch["error_file_id"])
        assert bad["error"]["code"] == "line_too_long"


async def test_a_line_of_too_many_values_is_not_decoded(database):
    """A route refuses them too, but each line's decoding would hold the event loop."""
    async with serving(database, max_body_values=1000) as server:
        ada = await server.token("ada")
        many = line("many", body={**BODY, "logit_bias": {str(i): 1 for i in range(2000)}})
        batch = await ended(server, ada, await make(server, ada, [many, line("few")]))
        assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
        [bad] = await results(server, ada, batch["error_file_id"])
        assert bad["error"]["code"] == "line_too_long"
        assert "more than 1000 values" in bad["error"]["message"]


async def test_empty_lines_end(database):
    """Megabytes of line ends are not counted to the end, nor in one go."""
    async with serving(database, batch_max_lines=50) as server:
        ada = await server.token("ada")
        spaced = json.dumps(line("a")).encode() + b"\n" * 80
        batch = await ended(server, ada, await make(server, ada, spaced))
        assert batch["request_counts"]["completed"] == 1
        batch = await ended(server, ada, await make(server, ada, b"\n" * 100_000 + spaced))
        assert batch["status"] == "failed"
        assert [error["code"] for error in batch["errors"]["data"]] == ["too_many_requests"]


async def test_every_line_of_a_piece_is_told_by_itself():
    """So that whoever reads a piece of line ends can let others have their turn."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"\n\na\n"
        yield b"b"

    read = [(raw.number, raw.text, raw.blank) async for raw in lines_of(pieces(), 10)]
    assert read == [(0, b"", True), (1, b"", True), (2, b"a", False), (3, b"b", False)]


async def test_lines_come_behind_and_are_asked_again_when_there_is_no_room(database):
    service = Service()
    service.refusals = 3
    async with serving(database, service) as server:
        ada = await server.token("ada")
        batch = await ended(server, ada, await make(server, ada, [line("a"), line("b")]))
        assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
        assert len(service.asking) == 5
        assert len({caller.client for caller in service.asking}) == 1
        [batched] = {(caller.client, caller.tenant) for caller in service.asking}
        await server.ask("POST", CHAT, BODY, token=ada)
        mine = service.asking[-1]
        assert batched == (f"behind {mine.client}", mine.tenant)


async def test_a_line_that_is_always_to_come_again_keeps_nobody_else_waiting(database):
    """One of more choices than there are slots waits until nobody else is served."""
    service = Service()
    async with serving(database, service, batch_lines_at_once=1) as server:
        ada, bob = await server.token("ada"), await server.token("bob")
        real, refused = service.start_batch, []

        async def start_batch(requests, model_id=None, caller=NOBODY):
            if requests[0].sampling.seed == 7:
                refused.append(caller)
                raise Overloaded(64, 64, 0)
            return await real(requests, model_id, caller)

        service.start_batch = start_batch
        waits = await make(server, ada, [line("a", body={**BODY, "seed": 7})])
        async with asyncio.timeout(PATIENCE_S):
            while not refused:
                await asyncio.sleep(0.01)
        batch = await ended(server, bob, await make(server, bob, [line("b")]))
        assert batch["status"] == "completed"
        cancelled = await server.ask("POST", f"/v1/batches/{waits['id']}/cancel", token=ada)
        assert cancelled.status == 200
        assert (await ended(server, ada, waits))["status"] == "cancelled"


async def test_answers_end_where_a_users_room_for_files_does(database):
    """One small file could fill the disk with what is answered to it, again and again."""
    service = Service([TextDelta("x" * 300_000), end()])
    lines = [line(f"{number}") for number in range(6)]
    async with serving(database, service, file_mb_per_user=1, batch_lines_at_once=1) as server:
        ada = await server.token("ada")
        batch = await ended(server, ada, await make(server, ada, lines))
        assert batch["request_counts"] == {"total": 6, "completed": 4, "failed": 2}
        assert len(service.asking) == 4
        bad = await results(server, ada, batch["error_file_id"])
        assert [(one["custom_id"], one["error"]["code"]) for one in bad] == [
            ("4", "quota_full"),
            ("5", "quota_full"),
        ]
        again = {"input_file_id": batch["input_file_id"], "endpoint": CHAT}
        again |= {"completion_window": "24h"}
        full = await server.ask("POST", "/v1/batches", again, token=ada)
        assert (full.status, full.json["error"]["code"]) == (400, "quota_full")
        await server.ask("DELETE", f"/v1/files/{batch['output_file_id']}", token=ada)
        assert (await server.ask("POST", "/v1/batches", again, token=ada)).status == 200


async def test_no_line_counts_against_the_rate_limit(database):
    async with serving(database, rate_limit_per_minute=1) as server:
        ada = await server.token("ada")
        batch = await ended(server, ada, await make(server, ada, [line(f"{i}") for i in range(4)]))
        assert batch["request_counts"]["completed"] == 4
        assert (await server.ask("POST", CHAT, BODY, token=ada)).status == 200
        assert (await server.ask("POST", CHAT, BODY, token=ada)).status == 429


async def test_a_restart_goes_on_and_answers_no_line_twice(database):
    gate = asyncio.Event()
    service = Service([TextDelta("Hello"), end()])
    lines = [line(f"line {number}") for number in range(6)]
    async with serving(database, service, batch_lines_at_once=1) as server:
        ada = await server.token("ada")
        service._scripts = [[TextDelta("Hello"), end()]]
        real, waits = service.start_batch, []

        async def start_batch(requests, model_id=None, caller=NOBODY):
            if len(service.asking) == 3:
                waits.append(caller)
                await gate.wait()
            return await real(requests, model_id, caller)

        service.start_batch = start_batch
        batch = await make(server, ada, lines)
        running = await until(
            server, ada, batch, lambda found: found["request_counts"]["completed"] == 3
        )
        assert running["status"] == "in_progress"
        assert running["output_file_id"] is None
        async with asyncio.timeout(PATIENCE_S):
            while not waits:
                await asyncio.sleep(0.01)
    async with serving(database) as server:
        batch = await ended(server, ada, batch)
        assert batch["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
        assert len(server.service.asking) == 3, "what was answered is not asked again"
        told = await results(server, ada, batch["output_file_id"])
        assert [one["custom_id"] for one in told] == [one["custom_id"] for one in lines]


async def test_cancelled_expired_and_a_file_that_is_read(database):
    gate = asyncio.Event()
    service = Service([gate, TextDelta("Hello"), end()])
    async with serving(database, service, batch_lines_at_once=1) as server:
        ada = await server.token("ada")

        async def begun(lines: list) -> dict:
            asked = len(service.asking)
            batch = await make(server, ada, lines)
            async with asyncio.timeout(PATIENCE_S):
                while len(service.asking) == asked:
                    await asyncio.sleep(0.01)
            return batch

        lines = [line("a"), line("b"), line("c")]
        batch = await begun(lines)
        path = f"/v1/files/{batch['input_file_id']}"
        kept = await server.ask("DELETE", path, token=ada)
        assert (kept.status, batch["id"] in kept.json["error"]["message"]) == (400, True)
        stopping = await server.ask("POST", f"/v1/batches/{batch['id']}/cancel", token=ada)
        assert stopping.json["status"] == "cancelling"
        gate.set()
        batch = await ended(server, ada, batch)
        assert (batch["status"], batch["cancelled_at"] > 0) == ("cancelled", True)
        told = await results(server, ada, batch["output_file_id"])
        assert [one["custom_id"] for one in told] == ["a"], "what was asked is kept"
        again = await server.ask("POST", f"/v1/batches/{batch['id']}/cancel", token=ada)
        assert again.status == 400
        assert (await server.ask("DELETE", path, token=ada)).json["deleted"] is True
        assert (await server.ask("GET", path, token=ada)).status == 404

        gate.clear()
        batch = await begun(lines)
        key = Batch.id == UUID(batch["id"].removeprefix("batch_"))
        past = datetime.now(UTC) - timedelta(seconds=1)
        async with database.write() as session:
            await session.execute(update(Batch).where(key).values(expires_at=past))
    gate.set()
    async with serving(database) as server:
        batch = await ended(server, ada, batch)
        assert batch["status"] == "expired"
        assert batch["request_counts"] == {"total": 3, "completed": 0, "failed": 3}
        bad = await results(server, ada, batch["error_file_id"])
        assert {one["error"]["code"] for one in bad} == {"batch_expired"}
        assert server.service.asking == []


async def test_an_input_that_expires_stays_until_its_batch_has_ended(database):
    gate = asyncio.Event()
    service = Service([gate, TextDelta("Hello"), end()])
    lines = [line("a"), line("b")]

    async def sweep() -> None:
        async with database.write() as session:
            while await delete_expired_files(session, batches.files_being_read()):
                pass

    async with serving(database, service, batch_lines_at_once=1) as server:
        ada = await server.token("ada")
        batch = await make(server, ada, lines)
        async with asyncio.timeout(PATIENCE_S):
            while not service.asking:
                await asyncio.sleep(0.01)
        past = datetime.now(UTC) - timedelta(seconds=1)
        async with database.write() as session:
            await session.execute(update(StoredFile).values(expires_at=past))
        await sweep()
        path = f"/v1/files/{batch['input_file_id']}"
        assert (await server.ask("GET", path, token=ada)).status == 404, "its user doesn't see it"
    gate.set()
    async with serving(database) as server:
        batch = await ended(server, ada, batch)
        assert batch["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
        told = await results(server, ada, batch["output_file_id"])
        assert [one["custom_id"] for one in told] == ["a", "b"]
        await sweep()
        assert await count(database, StoredFile) == 1, "the results"


async def test_news_that_come_with_the_end_do_not_keep_a_server(database):
    for turns in range(6):
        runner = BatchRunner(database, Settings())
        runner.start(None)
        await asyncio.sleep(0.1)  # until it waits for news; earlier would prove less
        runner.wake()
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S):
            await runner.close()


async def test_who_stood_still_at_the_end_leaves_what_another_wrote(database, monkeypatch):
    monkeypatch.setattr(batch_results, "READ_AT_ONCE", 2)
    lines = [line(f"line {number}") for number in range(5)]
    read, held, gate = batches.answered_lines, asyncio.Event(), asyncio.Event()
    life = timedelta(days=1)

    async def stand_still(*asked, **which):
        found = await read(*asked, **which)
        if asyncio.current_task() is slow and not held.is_set():
            held.set()
            await gate.wait()
        return found

    async with serving(database) as server:
        ada = await server.token("ada")
        batch = await make(server, ada, lines)
        await ended(server, ada, batch)
    async with serving(database, batch_lines_at_once=0) as server:  # nobody else ends it
        key = UUID(batch["id"].removeprefix("batch_"))
        owner = await server.auth.accounts.named("ada")
        rows = [batches.Line(number=n, start=0, length=1, custom_id=f"{n}") for n in range(5)]
        async with database.write() as session:
            await session.execute(update(Batch).values(status="finalizing", completed=0))
            one = await batches.find_batch(session, owner.id, key)
            await batches.add_lines(session, one, rows)
        async with database.read() as session:
            other = await batches.find_batch(session, owner.id, key)
        for row in rows:
            async with database.write() as session:
                outcome = json.dumps({"custom_id": row.custom_id})
                await batches.answer_line(session, one, row.number, outcome, good=True)
        monkeypatch.setattr(batches, "answered_lines", stand_still)
        ending = batch_results.end_batch
        slow = asyncio.create_task(ending(database, one, "completed", life))
        await held.wait()
        assert await ending(database, other, "completed", life)
        before = (await show(server, ada, batch))["output_file_id"]
        gate.set()
        assert not await slow
        assert (await show(server, ada, batch))["output_file_id"] == before
        told = await results(server, ada, before)
        assert [one["custom_id"] for one in told] == [row.custom_id for row in rows]
        async with database.read() as session:
            shown = await session.scalars(select(StoredFile.purpose).where(StoredFile.whole))
            assert sorted(shown) == ["batch", "batch_output", "batch_output"]
        assert await count(database, StoredFile) == 3


async def test_a_file_that_is_deleted_while_it_is_read_breaks_off(database, caplog):
    content = bytes(range(256)) * 3000
    async with serving(database) as server:
        ada = await server.token("ada")
        path = f"/v1/files/{(await upload(server, ada, content)).json['id']}"

        async def delete(answer: Answer) -> None:
            if len(answer.chunks) == 1:
                assert (await server.ask("DELETE", path, token=ada)).status == 200

        answer = await server.ask("GET", f"{path}/content", token=ada, on_chunk=delete)
        assert (answer.status, answer.complete) == (200, False)
        assert int(answer.headers["content-length"]) == len(content) > len(answer.body) > 0
        [told] = [record for record in caplog.records if "answer_broken_off" in record.message]
        assert told.exc_info is None


async def test_all_four_endpoints(database):
    asked = {
        "/v1/completions": {"model": MODEL_ID, "prompt": "Hi"},
        "/v1/responses": {"model": MODEL_ID, "input": "Hi"},
        "/v1/embeddings": {"model": MODEL_ID, "input": "Hi"},
    }
    async with serving(database) as server:
        ada = await server.token("ada")
        for endpoint, body in asked.items():
            lines = [line("a", url=endpoint, body=body)]
            batch = await ended(server, ada, await make(server, ada, lines, endpoint))
            [told] = await results(server, ada, batch["output_file_id"] or batch["error_file_id"])
            plain = await server.ask("POST", endpoint, body, token=ada)
            assert told["response"]["status_code"] == plain.status
            assert told["response"]["body"].keys() == plain.json.keys()
        body = {"input_file_id": "x", "endpoint": "/v1/models", "completion_window": "24h"}
        refused = await server.ask("POST", "/v1/batches", body, token=ada)
        assert (refused.status, refused.json["error"]["param"]) == (400, "endpoint")


async def test_nobody_else_sees_a_file_or_a_batch(database):
    async with serving(database) as server:
        ada, bob = await server.token("ada"), await server.token("bob")
        batch = await ended(server, ada, await make(server, ada, [line("a")]))
        file = batch["input_file_id"]
        for method, path in (
            ("GET", f"/v1/files/{file}"),
            ("GET", f"/v1/files/{file}/content"),
            ("GET", f"/v1/files/{batch['output_file_id']}/content"),
            ("DELETE", f"/v1/files/{file}"),
            ("GET", f"/v1/batches/{batch['id']}"),
            ("POST", f"/v1/batches/{batch['id']}/cancel"),
            ("GET", f"/v1/files?after={file}"),
            ("GET", f"/v1/batches?after={batch['id']}"),
        ):
            assert (await server.ask(method, path, token=bob)).status == 404, path
            assert (await server.ask(method, path)).status == 401, path
        theirs = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
        assert (await server.ask("POST", "/v1/batches", theirs, token=bob)).status == 404
        for path in ("/v1/files", "/v1/batches"):
            assert (await server.ask("GET", path, token=bob)).json["data"] == []
            assert (await server.ask("GET", path)).status == 401
        assert (await upload(server, "", [line("a")])).status == 401
        await server.auth.accounts.remove("ada")
        assert [await count(database, kind) for kind in (StoredFile, FilePiece, Batch)] == [0] * 3


async def test_files_are_listed_in_pages(database):
    async with serving(database) as server:
        ada = await server.token("ada")
        ids = [(await upload(server, ada, b"x" * n)).json["id"] for n in range(1, 6)]
        whole = (await server.ask("GET", "/v1/files?order=asc", token=ada)).json
        assert [file["id"] for file in whole["data"]] == ids
        assert [file["bytes"] for file in whole["data"]] == [1, 2, 3, 4, 5]
        first = (await server.ask("GET", "/v1/files?limit=2", token=ada)).json
        assert ([file["id"] for file in first["data"]], first["has_more"]) == (ids[:2:-1], True)
        rest = await server.ask("GET", f"/v1/files?after={first['last_id']}", token=ada)
        assert [file["id"] for file in rest.json["data"]] == ids[2::-1]
        empty = await server.ask("GET", "/v1/files?purpose=batch_output", token=ada)
        assert empty.json["data"] == []
        # PostgreSQL takes no NUL, and would answer 500
        odd = await server.ask("GET", "/v1/files?purpose=%00", token=ada)
        assert (odd.status, odd.json["error"]["param"]) == (400, "purpose")


async def test_a_file_comes_back_as_it_was_sent(database):
    content = bytes(range(256)) * 3000
    async with serving(database) as server:
        ada = await server.token("ada")
        sent = (
            await upload(
                server,
                ada,
                content,
                **{"expires_after[anchor]": "created_at"} | {"expires_after[seconds]": "3600"},
            )
        ).json
        assert (sent["bytes"], sent["filename"]) == (len(content), "in.jsonl")
        assert sent["expires_at"] - sent["created_at"] in (3600, 3601)
        read = await server.ask("GET", f"/v1/files/{sent['id']}/content", token=ada)
        assert read.body == content
        assert await count(database, FilePiece) == 3


async def test_uploads_that_are_too_large_broken_off_or_no_form_leave_nothing(database):
    async with serving(database, file_mb=1, file_mb_per_user=2) as server:
        ada = await server.token("ada")
        large = await upload(server, ada, b"x" * 1_000_001)
        assert (large.status, large.json["error"]["param"]) == (400, "file")
        assert (await upload(server, ada, b"x", purpose="vision")).status == 400
        for name, value in (("seconds", "0"), ("seconds", "null"), ("anchor", "null")):
            fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
            wrong = await upload(server, ada, b"x", **fields | {f"expires_after[{name}]": value})
            told = (wrong.status, wrong.json["error"]["param"])
            assert told == (400, f"expires_after.{name}")
        raw, headers = form(b"x" * 600_000)
        for wrong in (
            {"raw": raw[:300_000], "headers": {**headers, "content-length": str(len(raw))}},
            {"raw": raw[:-10], "headers": headers},
            {"raw": b"junk", "headers": headers},
            {"raw": raw, "headers": {"content-type": "application/json"}},
            {"raw": raw, "headers": {"content-type": "multipart/form-data"}},
            {"raw": b"--xx--\r\n", "headers": headers},
        ):
            answer = await server.ask("POST", "/v1/files", token=ada, **wrong)
            assert answer.status == 400, (answer.status, answer.body, wrong["headers"])
        assert await count(database, StoredFile) == await count(database, FilePiece) == 0
        for _ in range(2):
            assert (await upload(server, ada, b"x" * 1_000_000)).status == 200
        full = await upload(server, ada, b"x")
        assert "2000000 are kept" in full.json["error"]["message"]
        assert (full.status, full.json["error"]["code"]) == (400, "quota_full")


async def test_a_user_sends_only_so_many_files_at_once(database):
    async with serving(database) as server:
        ada = await server.token("ada")
        owner = await server.auth.accounts.named("ada")
        writers = [FileWriter(database, owner.id) for _ in range(MAX_UPLOADS)]
        for writer in writers:
            await writer.begin("", "batch", None)
        full = await upload(server, ada, b"x")
        assert (full.status, full.json["error"]["code"]) == (400, "quota_full")
        assert (await server.ask("GET", "/v1/files", token=ada)).json["data"] == []
        await writers[0].undo()
        assert (await upload(server, ada, b"x")).status == 200
        old = datetime.now(UTC) - UPLOAD_LIFE - timedelta(seconds=1)
        async with database.write() as session:
            await session.execute(update(StoredFile).values(created_at=old))
        async with database.write() as session:
            while await delete_expired_files(session):
                pass
        assert await count(database, StoredFile) == 1, "the one that is whole"


async def test_a_batch_is_one_processs_until_it_lets_go_or_is_gone(database):
    async with serving(database, batch_lines_at_once=0) as server:
        ada = await server.token("ada")
        owner = await server.auth.accounts.named("ada")
        now = datetime.now(UTC)
        batch = Batch(
            id=uuid4(),
            user_id=owner.id,
            input_file=uuid4(),
            endpoint=CHAT,
            status="validating",
            created_at=now,
            expires_at=now,
            times="{}",
            labels="{}",
            total=0,
            completed=0,
            failed=0,
        )
        async with database.write() as session:
            await batches.add_batch(session, batch)
        one, other = uuid4(), uuid4()

        async def claimed(holder: UUID) -> bool:
            async with database.write() as session:
                return await batches.claim(session, owner.id, holder) is not None

        assert [await claimed(holder) for holder in (one, other, one)] == [True, False, True]
        async with database.write() as session:
            await batches.let_go(session, one)
        assert await claimed(other)
        async with database.write() as session:
            await session.execute(update(Batch).values(held_until=now - timedelta(seconds=1)))
        assert await claimed(one), "the other one said nothing for so long"
        async with database.write() as session:
            await batches.hold(session, one)
        assert not await claimed(other)
        body = {"input_file_id": "x", "endpoint": CHAT, "completion_window": "24h"}
        refused = await server.ask("POST", "/v1/batches", body, token=ada)
        assert "LLMHOST_BATCH_LINES_AT_ONCE" in refused.json["error"]["message"]
