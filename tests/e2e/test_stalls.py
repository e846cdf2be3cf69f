"""No request of any shape keeps others waiting, nor takes memory that does not come back."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.server import DEFAULT_MODEL, Server, least, running_server

LARGE = 9_600_000
"""Bytes; just below the limit of a body."""
LONGEST_SILENCE_S = 1.0
"""Far above what was measured (bench/LOG.md): a server that stalls does so for longer."""
MOST_MEMORY = 300_000_000
JSON = {"content-type": "application/json"}
MODEL = f'"model": "{DEFAULT_MODEL}"'.encode()


def listed(item: bytes, separator: bytes = b",") -> bytes:
    return separator.join([item] * (LARGE // (len(item) + len(separator))))


def chat(messages: bytes, more: bytes = b"") -> bytes:
    return b'{%b, "messages": [%b]%b}' % (MODEL, messages, more)


HI = b'{"role": "user", "content": "Hi"}'
SHAPES: dict[str, tuple[str, bytes]] = {
    "empty messages": ("/v1/chat/completions", chat(listed(b'{"role":"user","content":""}'))),
    "one long message": (
        "/v1/chat/completions",
        chat(b'{"role": "user", "content": "%b"}' % listed(b"hello", b" ")),
    ),
    "blanks": ("/v1/chat/completions", chat(b'{"role":"user","content":"%b"}' % (b" " * LARGE))),
    "a long tool description": (
        "/v1/chat/completions",
        chat(
            HI,
            b', "tools": [{"type": "function", "function": {"name": "f", "description": "%b"}}]'
            % listed(b"words", b" "),
        ),
    ),
    "a wide schema": (
        "/v1/chat/completions",
        chat(
            HI,
            b', "response_format": {"type": "json_schema", "json_schema": {"name": "s", '
            b'"schema": {"enum": [%b]}}}' % listed(b'"x"'),
        ),
    ),
    "many prompts": ("/generate/batch", b'{"prompts": [%b]}' % listed(b'"x"')),
    "many lists": ("/v1/completions", b'{%b, "prompt": [%b]}' % (MODEL, listed(b"[1]"))),
    "many token ids": ("/v1/completions", b'{%b, "prompt": [%b]}' % (MODEL, listed(b"1"))),
    "many floats": ("/v1/completions", b'{%b, "prompt": [%b]}' % (MODEL, listed(b"1.5"))),
    "many fields": (
        "/v1/chat/completions",
        chat(HI, b', "metadata": {%b}' % b",".join(b'"%d":"x"' % i for i in range(700_000))),
    ),
    "deep": ("/generate", b'{"prompt": %b' % (b"[" * LARGE)),
    "a long prompt": ("/generate", b'{"prompt": "%b"}' % listed(b"hello", b" ")),
    "a long raw prompt": ("/generate", b'{"raw": true, "prompt": "%b"}' % listed(b"hello", b" ")),
    "a long text to tokenize": (
        "/tokenize",
        b'{%b, "prompt": "%b"}' % (MODEL, listed(b"hello", b" ")),
    ),
    "many ids to detokenize": ("/detokenize", b'{%b, "tokens": [%b]}' % (MODEL, listed(b"1"))),
    "a context of ids to detokenize": (
        "/detokenize",
        b'{%b, "tokens": [%b]}' % (MODEL, b",".join([b"100"] * 150_000)),
    ),
    "special tokens": (
        "/v1/chat/completions",
        chat(b'{"role": "user", "content": "%b"}' % listed(b"<|im_end|>", b" ")),
    ),
    "stop strings": (
        "/generate",
        b'{"prompt": "Hi", "max_length": 2, "stop": "%b"}' % (b"a" * LARGE),
    ),
    "a query": ("/generate", b'{"query": "%b"}' % listed(b"hello", b" ")),
    "items of a response": (
        "/v1/responses",
        b'{%b, "input": [%b]}' % (MODEL, listed(b'{"role":"user","content":""}')),
    ),
    "no JSON": ("/generate", b"\xff" * LARGE),
}


@pytest.fixture(scope="module")
def idle_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("stalls")
    with running_server(folder, slots=2, context_length=2048, prefix_cache_mb=0) as running:
        yield running


@contextmanager
def longest_silence(server: Server) -> Iterator[list[float]]:
    """Ask again and again, on a thread of its own, whether the server lives."""
    longest, over = [0.0], threading.Event()

    def ask() -> None:
        with server.client() as client:
            while not over.wait(0.01):
                started_s = time.monotonic()
                assert client.get("/health/live").status_code == 200
                longest[0] = max(longest[0], time.monotonic() - started_s)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield longest
    finally:
        over.set()
        thread.join()


def resident(server: Server) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in server.worker_pids())


@pytest.mark.parametrize("shape", SHAPES)
def test_others_are_answered_beside_a_request_of_any_shape(idle_server: Server, shape: str):
    path, body = SHAPES[shape]
    before, most, over = resident(idle_server), [0], threading.Event()
    answers: list[httpx.Response] = []

    def watch() -> None:
        while not over.wait(0.005):
            most[0] = max(most[0], resident(idle_server))

    def ask() -> float:
        with longest_silence(idle_server) as silence, idle_server.client() as client:
            answers.extend(client.post(path, content=body, headers=JSON) for _ in range(2))
        return silence[0]

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        shortest_s = least(ask, LONGEST_SILENCE_S)
    finally:
        over.set()
        watcher.join()
    assert {answer.status_code for answer in answers} <= {200, 400, 401, 413}, answers[0].text[:300]
    assert all(len(answer.content) < 1000 or answer.status_code == 200 for answer in answers)
    assert shortest_s < LONGEST_SILENCE_S, "others were kept waiting each time"
    assert most[0] - before < MOST_MEMORY + len(body)


def test_memory_comes_back(idle_server: Server):
    """After every shape above, twice more."""
    first = None
    for _ in range(2):
        with idle_server.client() as client:
            for path, body in SHAPES.values():
                client.post(path, content=body, headers=JSON)
        if first is None:
            first = resident(idle_server)
    ends_s = time.monotonic() + 60
    # the server looks every 5 s whether its heap has grown
    while resident(idle_server) - first >= 100_000_000 and time.monotonic() < ends_s:
        time.sleep(0.5)
    assert resident(idle_server) - first < 100_000_000


def test_the_server_still_generates(idle_server: Server):
    with httpx.Client(base_url=idle_server.url, timeout=60) as client:
        answer = client.post("/generate", json={"prompt": "Hi", "max_length": 3})
    assert answer.status_code == 200, answer.text
