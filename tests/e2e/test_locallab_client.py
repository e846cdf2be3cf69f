r"""The unmodified `locallab-client` 1.1.0 from PyPI, both classes, every public method.

Its whole answers and `stream_chat` carry every character. The limit of `stream_generate`'s own
parser: it reads lines and strips each, so a line end arrives as the two characters `\n` (`\r`
likewise), not to be told from a backslash and an n in the text, and white space at the very end
of the text is lost.
"""

import inspect
from collections.abc import AsyncIterator, Iterator

import pytest
from locallab_client import LocalLabClient, SyncLocalLabClient

from tests.e2e.scripted_app import AS_STREAMED, FIRST, SECOND, TEXT
from tests.e2e.server import DEFAULT_MODEL, Server

PROMPT = 'Say "5\n" 😀 '
TURN = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
TOKYO = "What is the capital of Japan?", "The capital of Japan is Tokyo."


@pytest.fixture
async def client(scripted: Server) -> AsyncIterator[LocalLabClient]:
    client = LocalLabClient(scripted.url)
    yield client
    await client.close()


@pytest.fixture
def sync_client(scripted: Server) -> Iterator[SyncLocalLabClient]:
    with SyncLocalLabClient(scripted.url) as client:
        yield client


def test_the_methods_below_are_all_that_there_are():
    tested = {
        "generate",
        "stream_generate",
        "chat",
        "stream_chat",
        "batch_generate",
        "health_check",
        "load_model",
        "unload_model",
        "get_current_model",
        "list_models",
        "get_system_info",
        "close",
    }
    for kind, own in ((LocalLabClient, {"connect"}), (SyncLocalLabClient, set())):
        methods = {name for name, _ in inspect.getmembers(kind, inspect.isfunction)}
        assert {name for name in methods if name[0] != "_"} == tested | own


def text_of(answer: dict) -> str:
    [choice] = answer["choices"]
    assert (choice["message"]["role"], choice["finish_reason"]) == ("assistant", "stop")
    return choice["message"]["content"]


async def test_async_whole_answers_carry_every_character(client: LocalLabClient):
    await client.connect()
    assert await client.generate(PROMPT) == TEXT
    assert await client.generate(PROMPT, max_time=60, max_length=200, do_sample=False) == TEXT
    assert text_of(await client.chat(TURN)) == TEXT
    batch = await client.batch_generate([PROMPT, "another", "third"])
    assert batch["responses"] == [TEXT] * 3


async def test_async_streams_carry_what_the_parser_can(client: LocalLabClient):
    for stream in (client.stream_generate(PROMPT), await client.generate(PROMPT, stream=True)):
        pieces = [piece async for piece in stream]
        assert len(pieces) > 3, "it must come in pieces or this is no stream"
        assert "".join(pieces) == AS_STREAMED
    for stream in (client.stream_chat(TURN), await client.chat(TURN, stream=True)):
        chunks = [chunk async for chunk in stream]
        assert len(chunks) > 3
        assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == TEXT
        assert "".join(chunk["content"] for chunk in chunks) == TEXT


async def test_async_model_methods(client: LocalLabClient):
    assert await client.health_check()
    assert await client.load_model(FIRST) is True
    assert await client.load_model(FIRST) is True, "loading a loaded model succeeds"
    current = await client.get_current_model()
    assert (current["model_id"], current["is_loaded"]) == (FIRST, True)
    models = {model["id"]: model["is_loaded"] for model in await client.list_models()}
    assert models == {FIRST: True, SECOND: False}
    assert await client.load_model(SECOND) is True
    assert (await client.get_current_model())["model_id"] == SECOND
    assert await client.generate(PROMPT, model_id=FIRST) == TEXT, "it is loaded when named"
    assert (await client.get_system_info())["active_model"] == FIRST
    assert await client.unload_model() is True
    assert await client.unload_model() is False, "there is none left"
    with pytest.raises(Exception, match="model"):
        await client.get_current_model()
    with pytest.raises(Exception, match="no model is loaded"):
        await client.generate(PROMPT)
    with pytest.raises(Exception, match="nobody/nothing"):
        await client.load_model("nobody/nothing")
    assert await client.load_model(FIRST) is True


def test_sync_whole_answers_carry_every_character(sync_client: SyncLocalLabClient):
    assert sync_client.generate(PROMPT) == TEXT
    assert text_of(sync_client.chat(TURN)) == TEXT
    assert sync_client.batch_generate([PROMPT, "another"])["responses"] == [TEXT] * 2


def test_sync_streams_carry_what_the_parser_can(sync_client: SyncLocalLabClient):
    for stream in (
        sync_client.stream_generate(PROMPT),
        sync_client.generate(PROMPT, stream=True),
    ):
        assert "".join(stream) == AS_STREAMED
    for stream in (sync_client.stream_chat(TURN), sync_client.chat(TURN, stream=True)):
        assert "".join(chunk["content"] for chunk in stream) == TEXT


def test_sync_model_methods(sync_client: SyncLocalLabClient):
    assert sync_client.health_check()
    assert sync_client.load_model(SECOND) is True
    assert sync_client.get_current_model()["model_id"] == SECOND
    assert {model["id"] for model in sync_client.list_models()} == {FIRST, SECOND}
    assert sync_client.get_system_info()["active_model"] == SECOND
    assert sync_client.unload_model() is True
    assert sync_client.unload_model() is False
    assert sync_client.load_model(FIRST) is True


def test_nobody_at_home_is_not_healthy():
    with SyncLocalLabClient("http://127.0.0.1:1") as client:
        assert client.health_check() is False


async def test_the_default_model_says_the_same_streamed_as_whole(server: Server):
    question, answer = TOKYO
    greedy = {"temperature": 0, "repetition_penalty": 1.0, "model_id": DEFAULT_MODEL}
    client = LocalLabClient({"base_url": server.url, "api_key": "an open server ignores this"})
    try:
        assert await client.generate(question, **greedy) == answer
        pieces = [piece async for piece in client.stream_generate(question, **greedy)]
        assert "".join(pieces) == answer
    finally:
        await client.close()
