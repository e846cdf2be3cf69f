"""The protocol of a peer's program: one JSON command per line on stdin, one JSON answer per line.

Commands, in `do`: `load` (model, threads, batches: the [rows, tokens] that will be asked for),
`fill` (prompts: read them to their ends and make them the running batch), `decode` (steps: time
each), `drop` (forget the batch), `prefill` (ids: time one prompt up to its first new token),
`logits` (ids, out: save float32 [S, V] as .npy), `memory`, `quit`. An answer has `cannot`, with the
reason, where the engine can't do what was asked.

Runs under the Python of every peer's environment: uses the standard library, nothing else.
"""

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PR_SET_PDEATHSIG = 1
SPARE = 256
"""Tokens that a row has room for beyond its prompt: more than are ever timed."""
Ids = list[int]
Batches = list[tuple[int, int]]


class Cannot(Exception):
    """This engine can't do what is asked; the reason goes into the table."""


class Program(ABC):
    """One engine, decoding greedily: choosing the next token is part of what is timed."""

    @abstractmethod
    def load(self, model: str, threads: int, batches: Batches) -> dict[str, Any]:
        """Load; returns `weights_bytes` and `kv_bytes_per_token`, as a decode step reads them."""

    @abstractmethod
    def fill(self, prompts: list[Ids]) -> None:
        """Read prompts of equal length into a new batch, and choose the first new tokens."""

    @abstractmethod
    def step(self) -> None:
        """Feed each row its latest token and choose the next."""

    @abstractmethod
    def drop(self) -> None:
        """Forget the batch."""

    @abstractmethod
    def prefill(self, ids: Ids) -> None:
        """Read one prompt that was never seen before, choose one token, and keep nothing."""

    @abstractmethod
    def logits(self, ids: Ids, out: str) -> None:
        """Save the logits of all positions to the file `out`."""

    def steps(self, count: int) -> list[float]:
        """Seconds of each of `count` steps."""
        return [_seconds(self.step) for _ in range(count)]


def serve(program: Program) -> None:
    """Answer commands until `quit` or the end of stdin."""
    # The coordinator stops this process between commands: if it died then, we would never end.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Libraries print to stdout: redirect that to stderr, and write answers to a copy of it.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "quit":
            return
        try:
            answer = _answer(program, command)
        except Cannot as error:
            answer = {"cannot": str(error)}
        except Exception as error:  # noqa: BLE001 - reported to the coordinator, which shows it
            traceback.print_exc()
            answer = {"cannot": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(answer) + "\n")


def _answer(program: Program, command: dict[str, Any]) -> dict[str, Any]:
    do, rest = command["do"], {k: v for k, v in command.items() if k != "do"}
    if do == "load":
        return program.load(**rest)
    if do == "decode":
        return {"ms": [seconds * 1e3 for seconds in program.steps(rest["steps"])]}
    if do == "prefill":
        return {"ms": _seconds(lambda: program.prefill(rest["ids"])) * 1e3}
    if do == "memory":
        return {"peak_bytes": peak_bytes()}
    others: dict[str, Callable[..., None]] = {
        "fill": program.fill,
        "drop": program.drop,
        "logits": program.logits,
    }
    others[do](**rest)
    return {}


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def peak_bytes() -> int:
    """The peak resident memory of this process, in bytes (Linux).

    Raises:
        Cannot: the system doesn't report it.
    """
    with open("/proc/self/status") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise Cannot("the system does not report peak memory")


@contextmanager
def failing_as(reason: str) -> Iterator[None]:
    """Turn any failure inside the block into `Cannot`."""
    try:
        yield
    except Exception as error:
        raise Cannot(f"{reason}: {error}") from error
