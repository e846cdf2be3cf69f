"""The server as a process: interfaces, signals while it serves, decoder faults."""

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.e2e.faulty_app import DECODE_FAULT, PREFILL_FAULT
from tests.e2e.server import PATIENCE_S, Server, running_server, wait_for

GREEDY = {"temperature": 0, "repetition_penalty": 1.0}
STORY = {"prompt": "Tell a long story.", "stream": True, **GREEDY}


def read_stream(server: Server, body: dict, result: list[str], started: threading.Event) -> None:
    with server.client() as client, client.stream("POST", "/generate", json=body) as response:
        for line in response.iter_lines():
            result.append(line)
            started.set()


@pytest.mark.parametrize("interface", [None, "asgi"])
def test_sigterm_lets_a_stream_finish_refuses_new_requests_and_exits_0(
    tmp_path: Path, interface: str | None
) -> None:
    with running_server(tmp_path, interface=interface, drain_timeout_s=120) as server:
        lines: list[str] = []
        started = threading.Event()
        body = {**STORY, "max_length": 250}
        reader = threading.Thread(target=read_stream, args=(server, body, lines, started))
        reader.start()
        assert started.wait(PATIENCE_S)
        # to the whole group, as process managers do, and more than once
        for pid in [server.process.pid, *server.worker_pids()] * 2:
            os.kill(pid, signal.SIGTERM)
        with server.client() as client:
            # who balances loads can still ask, and is told to go elsewhere
            ready = wait_for(
                lambda: (answer := client.get("/health/ready")).status_code == 503 and answer,
                "ready is still 200",
            )
            assert ready.json() == {"status": "not_ready", "reason": "shutting_down"}
            assert client.get("/health/live").status_code == 200
            refused = client.post("/generate", json={"prompt": "Hi"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert reader.is_alive(), "the stream must outlast this or it proves nothing"
        reader.join(120)
        assert lines[-2:] == ["data: [DONE]", ""]
        assert server.process.wait(PATIENCE_S) == 0


def test_what_outlasts_the_drain_ends_as_a_failure(tmp_path: Path) -> None:
    with running_server(tmp_path, drain_timeout_s=0.3) as server:
        lines: list[str] = []
        started = threading.Event()
        body = {**STORY, "max_length": 5000}
        reader = threading.Thread(target=read_stream, args=(server, body, lines, started))
        reader.start()
        assert started.wait(PATIENCE_S)
        server.process.send_signal(signal.SIGTERM)
        reader.join(PATIENCE_S)
        assert "data: [DONE]" not in lines
        assert any(line.startswith("data: [ERROR]") for line in lines)
        assert server.process.wait(PATIENCE_S) == 0


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("faulty")
    # Kept prompts are not fed again, and the decoder knows its victims by what it is fed.
    with running_server(folder, target="tests.e2e.faulty_app:app", prefix_cache_mb=0) as server:
        yield server


def test_a_fault_while_the_prompt_is_fed_is_500_and_the_next_request_works(faulty: Server) -> None:
    with faulty.client() as client:
        for stream in (False, True):
            body = {"prompt": f"Describe a {PREFILL_FAULT}.", "stream": stream}
            answer = client.post("/generate", json=body)
            assert answer.status_code == 500
            assert "injected prefill fault" in answer.json()["detail"]
            assert "Traceback" not in answer.text
        assert client.post("/generate", json={"prompt": "Hi", "max_length": 3}).status_code == 200


def test_a_fault_in_a_decode_step_marks_the_end_of_the_stream(faulty: Server) -> None:
    body = {"prompt": f"Describe a {DECODE_FAULT}.", "stream": True, **GREEDY}
    with faulty.client() as client:
        lines = [line for line in client.post("/generate", json=body).text.split("\n") if line]
        assert lines[-1].startswith("data: [ERROR]")
        assert "data: [DONE]" not in lines
        assert len(lines) > 1, "some text must have come before"
        whole = client.post("/generate", json={**body, "stream": False})
        assert whole.status_code == 500
        health = client.get("/health").json()
        assert (health["status"], health["slots_used"]) == ("healthy", 0)
        assert client.post("/generate", json={"prompt": "Hi", "max_length": 3}).status_code == 200
