"""A real server process: Granian, the real application, a model on disk."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx

ROOT = Path(__file__).parents[2]
T = TypeVar("T")
PATIENCE_S = 60.0
"""How long anything may take that should take a moment: machines that run tests are shared."""
START_S = 120.0
"""How long a start may take."""
TLS = httpx.create_ssl_context()
"""Each client would make one of its own, which takes longer than many a test, and none needs it."""
DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
_claims: list[socket.socket] = []
"""Abstract sockets, each of which keeps a port for this process until it ends."""


@dataclass
class Server:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def client(self, timeout_s: float = 600.0) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=timeout_s, verify=TLS)

    def async_client(self, timeout_s: float = 600.0) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(base_url=self.url, timeout=timeout_s, limits=limits, verify=TLS)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A bare connection; whatever waits on it does so for `PATIENCE_S` at most."""
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(PATIENCE_S)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def exchange(self, raw: bytes, *, half_close: bool = False) -> bytes:
        """Send bytes and read what comes until the server closes."""
        with self.connect() as connection:
            connection.sendall(raw)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def wait_for_line(self, text: str) -> str:
        """Wait until the log has a line with a text in it."""

        def find() -> str | None:
            return next((line for line in self.lines() if text in line), None)

        return wait_for(find, f"no line with {text!r} in the log", START_S)

    def worker_pids(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


def read_all(connection: socket.socket) -> bytes:
    """Read until the other end closes or resets."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection on which it had nothing to say."""
    if not select.select([connection], [], [], 0)[0]:
        return False
    return read_all(connection) == b""


def wait_for(look: Callable[[], T | None], otherwise: str, patience_s: float = PATIENCE_S) -> T:
    """Look until something is there."""
    give_up = time.monotonic() + patience_s
    while time.monotonic() < give_up:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(otherwise)


def least(measure: Callable[[], float], limit: float, tries: int = 5) -> float:
    """The least of several measurements, of which no more are made once one is below the limit.

    What is slow is slow each time; a machine that has others to serve is so once in a while.
    """
    found = float("inf")
    for _ in range(tries):
        found = min(found, measure())
        if found < limit:
            break
    return found


def free_port() -> int:
    """A port that nobody listens on, and that no other process of the tests is given.

    A port that the kernel names may go to anybody's next connection before a server has bound it:
    these lie below those, and each is taken by a name that this process keeps.
    """
    for port in range(20_000, 30_000):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0llmhost-tests-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
        else:
            _claims.append(claim)
            return port
    raise AssertionError("no port is free")


@contextlib.contextmanager
def running_server(
    folder: Path,
    *,
    target: str = "app:app",
    interface: str | None = None,
    wait: bool = True,
    arguments: Sequence[str] = (),
    port: int | None = None,
    **settings: object,
) -> Iterator[Server]:
    """Start a server whose data and log lie in `folder`; settings are LLMHOST_ names in lower case.

    With `wait` off the caller looks at how the start itself ends. `arguments` are Granian's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    # interface None: as the README types it
    chosen = ["--interface", interface] if interface else []
    granian = Path(sys.executable).with_name("granian")
    command = [str(granian), *chosen, *arguments, "--port", str(port), target]
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
            process.wait(PATIENCE_S)  # more than a drain takes
        except subprocess.TimeoutExpired:
            for pid in server.worker_pids():
                os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
            raise


def wait_until_ready(server: Server, patience_s: float = START_S) -> None:
    give_up = time.monotonic() + patience_s
    with server.client(timeout_s=5.0) as client:
        while time.monotonic() < give_up and server.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/health").status_code == 200:
                    return
            time.sleep(0.1)
    raise AssertionError(f"the server did not start:\n{server.log.read_text()}")
