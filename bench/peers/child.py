"""Run a peer's program as a process that answers one command at a time.

Between answers the process is stopped (SIGSTOP): libraries let their threads spin after work, which
would slow down the engine that is measured next. A program that dies or takes too long is ended and
can be started again. Knows nothing about what is measured.
"""

import json
import os
import selectors
import signal
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class PeerFailed(Exception):
    """The program can't do what it was asked, died, or took too long; the text says which."""


class Child:
    """A module that speaks `programs.protocol`, run by the Python of its own environment."""

    def __init__(self, python: Path, module: str, log: Path, *arguments: str) -> None:
        self._command = [str(python), "-m", module, *arguments]
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        """Whether the process has been started and not ended."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The id of the process, which runs."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, threads: int) -> None:
        """Start the process, its libraries limited to `threads` threads."""
        self.end()
        limits = dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS"], str(threads))
        with self._log.open("a") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                cwd=ROOT,
                env={**os.environ, **limits, "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ask(self, do: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            PeerFailed: the program did not answer in time, died, or answered that it can't.
        """
        process = self._process
        assert process is not None, "not started"
        assert process.stdin is not None
        assert process.stdout is not None
        process.send_signal(signal.SIGCONT)
        try:
            process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(self._ended()) from None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                self.end()
                raise PeerFailed(f"no answer to {do} in {timeout_s:.0f} s")
        line = process.stdout.readline()
        if not line:
            raise PeerFailed(self._ended())
        process.send_signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        if "cannot" in answer:
            raise PeerFailed(answer["cannot"])
        return answer

    def end(self) -> None:
        """Kill the process, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.communicate()

    def _ended(self) -> str:
        assert self._process is not None
        code = self._process.wait(10)
        self.end()
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"the program ended with {code}: {lines[-1][:200] if lines else 'no output'}"
