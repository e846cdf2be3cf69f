"""A real server process: Granian, the real application, a model on disk."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass
class Server:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def client(self, timeout_s: float = 120.0) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=timeout_s)

    def async_client(self, timeout_s: float = 120.0) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(base_url=self.url, timeout=timeout_s, limits=limits)

    def worker_pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def running_server(
    folder: Path,
    *,
    target: str = "app:app",
    interface: str | None = None,
    wait: bool = True,
    **settings: object,
) -> Iterator[Server]:
    """Start a server whose data and log lie in `folder`; settings are LLMHOST_ names in lower case.

    With `wait` off the caller looks at how the start itself ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    # interface None: as the README types it
    chosen = ["--interface", interface] if interface else []
    command = [str(Path(sys.executable).with_name("granian")), *chosen, "--port", str(port), target]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLMHOST_")}
    settings = {"data_dir": folder, "rate_limit_per_minute": 0, "rate_limit_burst": 0, **settings}
    environment |= {f"LLMHOST_{name.upper()}": str(value) for name, value in settings.items()}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        if wait:
            wait_until_ready(server)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            for pid in server.worker_pids():
                os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
            raise


def wait_until_ready(server: Server, patience_s: float = 60.0) -> None:
    give_up = time.monotonic() + patience_s
    while time.monotonic() < give_up:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/health").status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"the server did not start:\n{server.log.read_text()}")
