"""What a stop signal does: before anything is served, while it is, and how Granian gets to know.

Granian stops accepting connections as soon as it hears one, and then waits for those that are
open without limit. So it is told late: when the application has finished what it was doing.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Final

logger = logging.getLogger(__name__)

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def exit_while_starting() -> None:
    """Let a stop signal end this process at once, for as long as it serves nothing.

    A worker inherits the handlers of Granian's main process, which only take a note. Granian
    replaces them when the application is there, and heeds what it hears when that has started.
    """
    if not in_worker():
        return
    # A signal that came before this module did: the handler we inherited has taken the note.
    granian = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if getattr(granian, "interrupt_signal", False):
        _leave(signal.SIGTERM)
    for number in STOP_SIGNALS:
        signal.signal(number, _leave)


def in_worker() -> bool:
    """Whether this process is one that Granian started to serve, and its signals are ours."""
    return multiprocessing.current_process().name == "granian-worker"


class StopSignals:
    """Hears the stop signals in Granian's place, and passes one on when it is asked to.

    The kernel tells an event loop of a signal by a byte in its wakeup file descriptor. In between
    is a socket of ours: what is no stop signal goes on to the loop at once.
    """

    def __init__(self, on_stop: Callable[[], Awaitable[None]]) -> None:
        self._on_stop = on_stop
        self._loop = asyncio.get_running_loop()
        self._stopping: asyncio.Task[None] | None = None
        self._number: int = signal.SIGTERM
        self._heard, self._kernels = socket.socketpair()
        for end in (self._heard, self._kernels):
            end.setblocking(False)
        self._granians = signal.set_wakeup_fd(self._kernels.fileno(), warn_on_full_buffer=False)
        self._loop.add_reader(self._heard, self._hear)
        for number in STOP_SIGNALS:
            # beside the byte, for a loop that has put its own descriptor back (uvloop)
            signal.signal(number, self._stop_soon)
            signal.siginterrupt(number, False)

    def pass_on(self) -> None:
        """Let Granian stop. Once: at the third signal its handler blocks the loop (2.8.9)."""
        self._to_granian(bytes([self._number]))

    async def close(self) -> None:
        """Wait for what a signal has begun, and heed none from now on."""
        self._loop.remove_reader(self._heard)
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(self._granians)
        if self._stopping is not None:
            await self._stopping
        self._heard.close()
        self._kernels.close()

    def _hear(self) -> None:
        numbers = self._heard.recv(4096)
        for number in numbers:
            if number in STOP_SIGNALS:
                self._stop(number)
        self._to_granian(bytes(number for number in numbers if number not in STOP_SIGNALS))

    def _stop_soon(self, number: int, _: object) -> None:
        self._loop.call_soon_threadsafe(self._stop, number)

    def _stop(self, number: int) -> None:
        if self._stopping is None:
            self._number = number
            self._stopping = self._loop.create_task(self._stop_in_order())

    async def _stop_in_order(self) -> None:
        try:
            await self._on_stop()
        except Exception:
            logger.exception("stop_failed")
            self.pass_on()

    def _to_granian(self, numbers: bytes) -> None:
        if numbers and self._granians >= 0:
            with contextlib.suppress(BlockingIOError):  # full of signals that say no more
                os.write(self._granians, numbers)


def _leave(number: int, _: object = None) -> None:
    logger.info("stopped_while_starting signal=%s", signal.Signals(number).name)
    os._exit(0)
