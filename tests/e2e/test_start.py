"""How a start ends: served and said so, stopped in the middle, or failed with one sentence."""

import contextlib
import os
import signal
from pathlib import Path

import httpx
import pytest

from tests.e2e.server import (
    DEFAULT_MODEL,
    PATIENCE_S,
    START_S,
    free_port,
    running_server,
    wait_for,
)

INTERFACES = pytest.mark.parametrize("interface", [None, "asgi"])


@INTERFACES
def test_ready_is_logged_when_it_is(tmp_path: Path, interface: str | None) -> None:
    with running_server(tmp_path, interface=interface, wait=False) as server:
        line = server.wait_for_line("ready on ")
        assert line.endswith(f"ready on {server.url} model={DEFAULT_MODEL}")
        assert httpx.get(f"{server.url}/health/ready").status_code == 200
        loaded = next(i for i, line in enumerate(server.lines()) if "model_loaded" in line)
        assert loaded < server.lines().index(line)


IMPORTS, STARTS = "Spawning worker-1", "alembic.runtime.migration"
"""Lines of the log: what follows the first are imports, what follows the second is the lifespan."""


@pytest.mark.parametrize(
    ("interface", "number", "moment"),
    [
        (None, signal.SIGTERM, IMPORTS),
        (None, signal.SIGINT, IMPORTS),
        (None, signal.SIGTERM, STARTS),
        (None, signal.SIGINT, STARTS),
        ("asgi", signal.SIGTERM, STARTS),
    ],
)
def test_a_stop_signal_ends_a_start_at_once(
    tmp_path: Path, interface: str | None, number: signal.Signals, moment: str
) -> None:
    for attempt in range(5):  # a busy machine may send the signal only when the server is ready
        with running_server(tmp_path / f"{attempt}", interface=interface, wait=False) as server:
            server.wait_for_line(moment)
            server.process.send_signal(number)
            assert server.process.wait(PATIENCE_S) == 0
            log = server.log.read_text()
            assert "Traceback" not in log
            if "ready on" not in log:
                return
    raise AssertionError("it started all the same, each time")


def test_a_stop_signal_to_the_whole_group_ends_a_start_too(tmp_path: Path) -> None:
    with running_server(tmp_path, wait=False) as server:
        server.wait_for_line(IMPORTS)
        for pid in [server.process.pid, *server.worker_pids()]:
            with contextlib.suppress(ProcessLookupError):  # the first has told the second already
                os.kill(pid, signal.SIGINT)
        server.process.wait(PATIENCE_S)
        assert "ready on" not in server.log.read_text()


SETTINGS = [
    ({"max_waiting": "many"}, "LLMHOST_MAX_WAITING='many': expected int >= 0"),
    ({"max_wating": "5"}, "LLMHOST_MAX_WATING: no such setting; there are LLMHOST_HOST, "),
    ({"data_dir": "README.md"}, "LLMHOST_DATA_DIR='README.md' can't be written: "),
    ({"jwt_secret": "short"}, "LLMHOST_JWT_SECRET: a secret has 5 bytes"),
    ({"allowed_hosts": "http://x"}, "LLMHOST_ALLOWED_HOSTS: 'http://x' is no host name; expected "),
]
LIFESPAN = [
    (
        {"model": "foo/bar"},
        f"LLMHOST_MODEL='foo/bar': there is no such model in 'models', there is {DEFAULT_MODEL}; ",
    ),
    ({"execution_provider": "cuda"}, "'cuda' is not in the installed onnxruntime"),
    ({"database_url": "sqlite:///README.md", "model": ""}, "README.md can't be used: "),
    ({"operations_address": "here", "model": ""}, "LLMHOST_OPERATIONS_ADDRESS='here': expected "),
]


@pytest.mark.parametrize(
    ("interface", "settings", "message"),
    [
        *((None, *case) for case in SETTINGS + LIFESPAN),
        *(("asgi", *case) for case in LIFESPAN),
    ],
)
def test_a_start_that_cannot_work_fails_and_says_why_in_one_line(
    tmp_path: Path, interface: str | None, settings: dict, message: str
) -> None:
    with running_server(tmp_path, interface=interface, wait=False, **settings) as server:
        assert server.process.wait(START_S) == 1
        [line] = [line for line in server.lines() if "start_failed: " in line]
        assert message in line
        assert "Traceback" not in server.log.read_text()
        assert "ready on" not in server.log.read_text()


@INTERFACES
def test_a_port_that_another_server_has_is_refused_before_anything_is_loaded(
    tmp_path: Path, interface: str | None
) -> None:
    with running_server(tmp_path / "first", model="") as first:
        [worker] = first.worker_pids()
        with running_server(
            tmp_path / "second", interface=interface, wait=False, port=first.port
        ) as second:
            assert second.process.wait(START_S) == 1
            [line] = [line for line in second.lines() if "start_failed: " in line]
            assert f"port {first.port} of 127.0.0.1 is in use by process {worker}: " in line
            assert "model_loaded" not in second.log.read_text()
        assert httpx.get(f"{first.url}/health/live").status_code == 200


@INTERFACES
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_probes_and_clients_cannot_share_a_port(
    tmp_path: Path, interface: str | None, host: str
) -> None:
    port = free_port()
    with running_server(
        tmp_path,
        interface=interface,
        wait=False,
        port=port,
        model="",
        operations_address=f"{host}:{port}",
    ) as server:
        assert server.process.wait(START_S) == 1
        [line] = [line for line in server.lines() if "start_failed: " in line]
        assert f"LLMHOST_OPERATIONS_ADDRESS='{host}:{port}': that is where clients" in line


def test_two_that_start_on_one_port_at_the_same_time_become_one(tmp_path: Path) -> None:
    with (
        running_server(tmp_path / "first", model="", wait=False) as first,
        running_server(tmp_path / "second", model="", wait=False, port=first.port) as second,
    ):
        both = (first, second)
        # which worker is the older one is for the kernel to say
        wait_for(
            lambda: any(server.process.poll() is not None for server in both),
            "one must end",
            START_S,
        )
        [stays] = [server for server in both if server.process.poll() is None]
        stays.wait_for_line("ready on ")
        [ended] = [server for server in both if server is not stays]
        assert ended.process.returncode == 1
        assert "start_failed: port" in ended.log.read_text()
        assert stays.process.poll() is None


def test_workers_share_a_port(tmp_path: Path) -> None:
    with running_server(tmp_path, model="", arguments=["--workers", "2"], wait=False) as server:
        server.wait_for_line("Spawning worker-2")
        first = server.wait_for_line("ready on ")
        assert len(server.worker_pids()) == 2
        assert first.endswith("model=none")
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0
        assert "start_failed" not in server.log.read_text()
