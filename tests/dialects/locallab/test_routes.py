import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Litestar

from app.contract.sampling import FinishReason
from app.dialects.locallab import routes as locallab
from app.engine.sequence import EngineRequest
from app.errors import EngineFailure
from tests.asgi_client import Answer, ask
from tests.dialects.readers import read_events, stream_chat, stream_generate
from tests.fakes import MODEL_ID, FakeService, Step, byte_ids, until
from tests.hosts import app_over, host_over

SSE = {"accept": "text/event-stream"}
TURN = [{"role": "user", "content": "Hi"}]


def app_for(service: FakeService, **settings: object) -> Litestar:
    return app_over(host_over(service, **settings), [locallab])


async def generate(service: FakeService, /, *, headers=None, **fields: object) -> Answer:
    body = {"prompt": "Hi", **fields}
    return await ask(app_for(service), "POST", "/generate", body, headers=headers)


async def chat(service: FakeService, /, *, headers=None, **fields: object) -> Answer:
    body = {"messages": TURN, **fields}
    return await ask(app_for(service), "POST", "/chat", body, headers=headers)


async def test_generate_answers_with_the_whole_text_and_its_cost():
    service = FakeService("Hello ", "you")
    answer = await generate(service)
    prompt_tokens = len(service.engine.submitted[0].prompt_ids)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "response": "Hello you",
        "model_id": MODEL_ID,
        "finish_reason": "stop",
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": 10,
            "total_tokens": prompt_tokens + 10,
        },
    }


async def test_generate_goes_through_the_template_unless_raw():
    service = FakeService("x")
    await generate(service, system_prompt="Be brief.")
    await generate(service, raw=True)
    templated, raw = service.prompts()
    assert raw == "Hi"
    assert templated == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


async def test_chat_answers_with_the_assistants_turn():
    answer = await chat(FakeService("Hello", FinishReason.LENGTH))
    assert answer.status == 200
    assert answer.json["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello"},
            "finish_reason": "length",
        }
    ]
    assert answer.json["model_id"] == MODEL_ID
    assert answer.json["usage"]["completion_tokens"] == 5


async def test_a_batch_answers_in_order_and_sums_the_cost():
    def script(request: EngineRequest) -> list[Step]:
        return ["one"] if list(request.prompt_ids) == byte_ids("1") else ["three"]

    app = app_for(FakeService(script=script))
    body = {"prompts": ["1", "22"], "raw": True}
    answer = await ask(app, "POST", "/generate/batch", body)
    assert answer.status == 200
    assert answer.json == {
        "responses": ["one", "three"],
        "model_id": MODEL_ID,
        "usage": {"prompt_tokens": 3, "completion_tokens": 10, "total_tokens": 13},
    }


async def test_a_stream_to_the_original_client_carries_the_text():
    answer = await generate(FakeService("Hel", "lo ", "you\n", "5", "!"), stream=True)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-length" not in answer.headers
    yielded, ended = stream_generate(answer.body)
    assert ("".join(yielded), ended) == ("Hello you\\n5!", True)


async def test_a_chat_stream_to_the_original_client_carries_the_text():
    answer = await chat(FakeService("Hel", "lo ", "you\n", "5 "), stream=True)
    yielded, ended = stream_chat(answer.body)
    assert ended
    assert "".join(chunk["content"] for chunk in yielded) == "Hello you\n5 "


@pytest.mark.parametrize("endpoint", [generate, chat])
async def test_who_asks_for_events_gets_strict_ones(endpoint):
    answer = await endpoint(FakeService("a\n", "b "), stream=True, headers=SSE)
    *data, end = read_events(answer.body)
    assert ("".join(data), end) == ("a\nb ", "[DONE]")
    assert b"choices" not in answer.body


@settings(max_examples=20)  # each builds two applications
@given(st.lists(st.text(st.sampled_from('a5 \n"é😀[]{}'), min_size=1, max_size=5), max_size=6))
def test_streamed_is_what_whole_is(pieces):
    async def scenario() -> None:
        whole = (await generate(FakeService(*pieces))).json["response"]
        events = read_events((await generate(FakeService(*pieces), stream=True, headers=SSE)).body)
        assert "".join(events[:-1]) == whole == "".join(pieces)

    asyncio.run(scenario())


async def test_each_piece_is_sent_when_it_is_there():
    gate = asyncio.Event()
    arrived = asyncio.Event()
    service = FakeService("first", gate, "second")
    body = {"prompt": "Hi", "stream": True}
    asking = asyncio.create_task(
        ask(app_for(service), "POST", "/generate", body, on_chunk=lambda _: arrived.set())
    )
    async with asyncio.timeout(60):
        await arrived.wait()
        assert not asking.done()
        gate.set()
        answer = await asking
    assert answer.chunks[0] == b"data: first\n\n"


@pytest.mark.parametrize("endpoint", [generate, chat])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_before_the_first_byte_is_a_500_in_the_envelope(endpoint, stream):
    service = FakeService(EngineFailure("step broke"))
    answer = await endpoint(service, stream=stream)
    assert (answer.status, answer.json) == (500, {"detail": "step broke"})
    assert service.engine.in_use == 0


@pytest.mark.parametrize("endpoint", [generate, chat])
@pytest.mark.parametrize("headers", [{}, SSE])
async def test_a_failure_after_the_first_byte_is_marked_and_is_no_end(endpoint, headers):
    gate = asyncio.Event()
    service = FakeService("Hel", gate, EngineFailure("step broke"))
    app = app_for(service)
    path = "/generate" if endpoint is generate else "/chat"
    body = {"prompt": "Hi", "messages": TURN, "stream": True}
    answer = await ask(app, "POST", path, body, headers=headers, on_chunk=lambda _: gate.set())
    assert answer.status == 200
    assert read_events(answer.body) == ["Hel", "[ERROR] step broke"]
    assert b"[DONE]" not in answer.body
    assert service.engine.in_use == 0


every_endpoint = pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": "Hi"}),
        ("/generate", {"prompt": "Hi", "stream": True}),
        ("/chat", {"messages": TURN}),
        ("/chat", {"messages": TURN, "stream": True}),
        ("/generate/batch", {"prompts": ["a", "b", "c"]}),
    ],
)


@every_endpoint
async def test_a_client_that_goes_while_it_waits_frees_its_places(path, body):
    service = FakeService(asyncio.Event())
    gone = asyncio.Event()
    asking = asyncio.create_task(ask(app_for(service), "POST", path, body, gone=gone))
    async with asyncio.timeout(60):
        await until(lambda: service.engine.in_use)
        gone.set()
        await asking
    assert service.engine.in_use == 0
    assert len(service.engine.aborted) == len(service.engine.submitted)


@every_endpoint
async def test_a_task_that_is_cancelled_before_it_waits_frees_its_places(path, body):
    def script(_: EngineRequest) -> list[Step]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()  # takes effect when the handler first waits
        return [asyncio.Event()]

    service = FakeService(script=script)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(ask(app_for(service), "POST", path, body))
    assert service.engine.submitted
    assert service.engine.in_use == 0


@pytest.mark.parametrize("path", ["/generate", "/chat"])
async def test_a_client_that_goes_between_two_pieces_frees_its_place(path):
    service = FakeService("first", asyncio.Event())
    gone = asyncio.Event()
    body = {"prompt": "Hi", "messages": TURN, "stream": True}
    async with asyncio.timeout(60):
        answer = await ask(
            app_for(service), "POST", path, body, gone=gone, on_chunk=lambda _: gone.set()
        )
    assert not answer.complete
    assert service.engine.in_use == 0


async def test_a_client_that_goes_inside_send_frees_its_place_at_once():
    service = FakeService(*("piece " * 50).split())
    gone = asyncio.Event()

    async def stuck(_: Answer) -> None:
        gone.set()
        await asyncio.Event().wait()

    body = {"prompt": "Hi", "stream": True}
    async with asyncio.timeout(60):
        await ask(app_for(service), "POST", "/generate", body, gone=gone, on_chunk=stuck)
    assert service.engine.in_use == 0


async def test_a_server_that_raises_in_send_frees_the_place():
    service = FakeService("first", asyncio.Event())

    def broken(_: Answer) -> None:
        raise OSError("the client has gone")

    body = {"prompt": "Hi", "stream": True}
    async with asyncio.timeout(60):
        await ask(app_for(service), "POST", "/generate", body, on_chunk=broken)
    assert service.engine.in_use == 0


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        ({"top_p": 2}, 400, "top_p is 2, expected number > 0 and <= 1"),
        ({"model_id": "no/such"}, 404, "model 'no/such' is not on this server"),
        (
            {"prompt": "x" * 50, "raw": True},
            413,
            "prompt has 50 tokens, the context is 40 for prompt and answer together",
        ),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_a_status_in_the_envelope(fields, status, detail, stream):
    answer = await generate(FakeService("x", capacity=40), stream=stream, **fields)
    assert (answer.status, answer.json) == (status, {"detail": detail})
    assert answer.headers["content-type"] == "application/json"


async def test_a_full_queue_is_429_with_retry_after():
    service = FakeService(asyncio.Event(), max_requests=1)
    running = asyncio.create_task(generate(service))
    await until(lambda: service.engine.in_use)
    answer = await generate(service)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert answer.json == {"detail": "1 requests are running or waiting, the limit is 1"}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_batch_that_never_fits_is_refused_with_the_limit():
    app = app_for(FakeService("x", max_requests=2))
    answer = await ask(app, "POST", "/generate/batch", {"prompts": ["a"] * 3})
    assert answer.status == 400
    assert "the batch has 3 prompts, at most 2" in answer.json["detail"]


async def test_messages_that_the_template_refuses_are_a_400():
    from app.catalog.chat_template import ChatTemplate

    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    answer = await chat(FakeService("x", chat_template=template))
    assert answer.status == 400
    assert "roles must alternate" in answer.json["detail"]


async def test_health_says_who_works():
    service = FakeService(asyncio.Event())
    running = asyncio.create_task(generate(service))
    await until(lambda: service.engine.load.running)
    answer = await ask(
        app_for(service), "GET", "/health", headers={"content-type": "application/json"}
    )
    assert (answer.status, answer.json) == (
        200,
        {"status": "healthy", "model": MODEL_ID, "slots": 8, "slots_used": 1, "waiting": 0},
    )
    service.engine.failure = EngineFailure("gone")
    answer = await ask(app_for(service), "GET", "/health")
    assert (answer.status, answer.json["status"]) == (503, "unhealthy")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_body_over_the_limit_is_413_with_the_limit():
    app = app_for(FakeService("x"), max_body_bytes=1000)
    answer = await ask(app, "POST", "/generate", {"prompt": "x" * 2000})
    assert (answer.status, answer.json) == (
        413,
        {"detail": "the body is larger than 1000 bytes"},
    )


def test_the_openapi_document_has_every_endpoint_with_its_body_and_errors():
    document = json.loads(json.dumps(app_for(FakeService()).openapi_schema.to_schema()))
    for path, field in (
        ("/generate", "prompt"),
        ("/chat", "messages"),
        ("/generate/batch", "prompts"),
    ):
        operation = document["paths"][path]["post"]
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        [body] = [option for option in body.get("oneOf", [body]) if option["required"] == [field]]
        assert body["properties"]["temperature"]["maximum"] == 2
        statuses = {"200", "400", "401", "404", "413", "429", "500", "503"}
        assert set(operation["responses"]) == statuses
        assert operation["summary"]
    assert "200" in document["paths"]["/health"]["get"]["responses"]
