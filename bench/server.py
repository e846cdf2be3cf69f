"""Start a server of ours for a measurement, in processes of its own, and end it.

Knows no endpoint but `/health`, and nothing of what is measured.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[1]
START_S: Final = 120.0
END_S: Final = 60.0
"""Twice the drain time that a server has by default."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def end(self) -> float | None:
        """Ask it to stop (SIGTERM) and wait.

        Returns:
            The seconds that it took; None: it still ran after `END_S` and was killed.
        """
        started_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    child.kill()
            self.process.kill()
            self.process.wait()
            return None
        return time.monotonic() - started_s


@contextlib.contextmanager
def running(folder: Path, **settings: object) -> Iterator[Server]:
    """Start a server, wait until it answers, and end it after the block unless it has ended.

    Args:
        folder: what it writes goes here: its data and its log.
        **settings: of the server, in lower case; the environment's own don't count.

    Raises:
        RuntimeError: it did not start; the message has the end of its log.
    """
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLMHOST_")}
    chosen = {"data_dir": folder / "data", **settings}
    environment |= {f"LLMHOST_{name.upper()}": str(value) for name, value in chosen.items()}
    granian = Path(sys.executable).with_name("granian")
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 # our own command
            [str(granian), "--port", str(port), "app:app"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
        )
    server = Server(port, process, log)
    try:
        give_up_s = time.monotonic() + START_S
        while not healthy(server.url):
            if process.poll() is not None or time.monotonic() > give_up_s:
                raise RuntimeError(f"the server did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield server
    finally:
        if process.poll() is None:
            server.end()


def healthy(url: str) -> bool:
    """Whether a server at this URL answers `/health` with 200."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310 # ours
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def free_port() -> int:
    """Find a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def lend(model: Path, to: Path) -> None:
    """Put a model into another folder, so that a server can't harm the original.

    Its files are links, or copies on another file system.
    """
    try:
        shutil.copytree(model, to, copy_function=os.link)
    except shutil.Error:
        shutil.copytree(model, to, dirs_exist_ok=True)
