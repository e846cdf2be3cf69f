"""Threads that step back when others want the processor.

A thread that computes vectors takes what running text streams leave. Linux weighs threads one by
one by their niceness, and a thread's children begin with its own: so ONNX Runtime's threads step
back too if a thread that has stepped back makes the session. Elsewhere nothing is changed.
"""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

T = TypeVar("T")

NICENESS: Final = 10
"""About a tenth of a processor that somebody else wants too, all of one that nobody wants."""


def step_back() -> None:
    """Let the calling thread, and those that it starts from now on, step back; for good."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        if os.getpriority(os.PRIO_PROCESS, thread) < NICENESS:
            os.setpriority(os.PRIO_PROCESS, thread, NICENESS)


def made_in_background(make: Callable[[], T]) -> T:
    """Run something on a thread that has stepped back, and wait for it.

    Raises:
        Exception: whatever it raises.
    """
    made: Future[T] = Future()

    def work() -> None:
        step_back()
        try:
            made.set_result(make())
        except BaseException as error:  # noqa: BLE001 # raised again where somebody waits
            made.set_exception(error)

    thread = threading.Thread(target=work, name="background", daemon=True)
    thread.start()
    thread.join()
    return made.result()
