"""Begin to shut down at the first signal, beside the server's own handling of it."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def on_stop_signal(shut_down: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `shut_down` on the event loop when the process is told to stop.

    Granian waits for its connections before it ends the lifespan, for ever if need be: something
    has to end what outlasts the drain time. Its own handler is the event loop's and stays; a
    handler of Python's beside it hears the signal too.
    """
    if threading.current_thread() is not threading.main_thread():
        return  # in a test: signals are the main thread's
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []

    def hear(*_: object) -> None:
        # One is enough, and a process manager may send it to the whole group: Granian's own
        # handler blocks its event loop for ever at the third (2.8.7).
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(shut_down())))

    for number in STOP_SIGNALS:
        signal.signal(number, hear)
