"""Have chat templates rendered by a process with limits (`render_template`).

One for all templates, started when first needed and again when a template has ended it. Methods
may be called from any thread; they wait for the answer.
"""

import json
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any, Final

import msgspec

from app.catalog.render_template import ANSWER, BROKEN, MEMORY_BYTES, REQUEST

_SCRIPT: Final = Path(__file__).with_name("render_template.py")

CPU_S: Final = 2.0
"""Processor time of one rendering, and as much again for each megabyte of the conversation: 1,000
turns of 300 kB take 5 to 30 ms."""
_PER_BYTE: Final = 8
"""A text may be so much longer than its conversation, and a megabyte besides."""
_WAIT: Final = 10
"""How many times its processor time a rendering may take by the clock: the machine may be busy."""


class TemplateProcess:
    """Renders one template at a time."""

    def __init__(self, cpu_s: float = CPU_S) -> None:
        """Start nothing yet.

        Args:
            cpu_s: processor time for a small conversation.
        """
        self._cpu_s = cpu_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., TemplateProcess] | None = None

    def ask(self, request: dict[str, Any]) -> tuple[bytes, str]:
        """Send a request, see `render_template`, and wait for the answer.

        Returns:
            The answer's kind and content. BROKEN if the request took more time or memory than it
            may; the process is another one then.
        """
        content = _encoded(request)
        cpu_s = self._cpu_s * (1 + len(content) / 1_000_000)
        head = REQUEST.pack(len(content), cpu_s, 1_000_000 + _PER_BYTE * len(content))
        with self._lock:
            answer = self._exchange(head + content, time.monotonic() + _WAIT * cpu_s)
            if answer is None:
                self._stop()
                limit = f"{cpu_s:.1f} s of processor time or {MEMORY_BYTES // 2**20} MB"
                return BROKEN, f"it takes more than {limit}"
        return answer

    def close(self) -> None:
        """End the process; the next request starts another one."""
        with self._lock:
            self._stop()

    def _exchange(self, request: bytes, until_s: float) -> tuple[bytes, str] | None:
        """Send a request and read its answer; None: there is none, or not in time."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        left = memoryview(request)
        try:
            while left:
                left = left[os.write(process.stdin.fileno(), left) :]
        except BrokenPipeError:
            return None
        head = _read(process.stdout.fileno(), ANSWER.size, until_s)
        if head is None:
            return None
        size, kind = ANSWER.unpack(head)
        content = _read(process.stdout.fileno(), size, until_s)
        return None if content is None else (kind, content.decode())

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._stop()  # it ended between two requests, and because of neither
        if self._process is None:
            settings = ("LLMHOST_",)  # a template that got out should find no secret
            self._process = subprocess.Popen(  # noqa: S603 # our own script
                [sys.executable, "-P", str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={k: v for k, v in os.environ.items() if not k.startswith(settings)},
                start_new_session=True,  # the terminal's Ctrl-C is not for it
            )
            self._end = weakref.finalize(self, _end, self._process)
        return self._process

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._end = None


def _encoded(request: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(request)
    except OverflowError:  # an integer of more than 64 bits, in a tool's schema
        return json.dumps(request).encode()


def _read(fd: int, size: int, until_s: float) -> bytes | None:
    """Read so many bytes; None: they end or don't come in time."""
    content = bytearray()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(content) < size:
        left_s = until_s - time.monotonic()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            return None
        piece = os.read(fd, min(size - len(content), 2**20))
        if not piece:
            return None
        content += piece
    return bytes(content)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()


TEMPLATES: Final = TemplateProcess()
"""The one that the server's models share."""
