"""Stop signals in a process that Granian could have started."""

import asyncio
import multiprocessing
import os
import signal
import time

import pytest

from app.process.signals import StopSignals, exit_while_starting

FORK = multiprocessing.get_context("fork")


class Granian:
    """Its main process's server, of which a worker inherits a copy and the bound handler."""

    interrupt_signal = False

    def signal_handler_interrupt(self, *_: object) -> None:
        self.interrupt_signal = True


def exit_status(work) -> int | None:
    """Run something as a worker does; None: it went on until it was killed."""
    process = FORK.Process(target=work, name="granian-worker")
    process.start()
    process.join(30)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    return process.exitcode


def serve_for_ever(*_: object) -> None:
    while True:
        time.sleep(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_line_of_ours_is_not_lost(number) -> None:
    def work() -> None:
        signal.signal(number, Granian().signal_handler_interrupt)
        signal.signal(signal.SIGTERM, signal.getsignal(number))
        signal.raise_signal(number)
        exit_while_starting()
        serve_for_ever()

    assert exit_status(work) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_application_is_imported_ends_the_process(number) -> None:
    def work() -> None:
        signal.signal(signal.SIGTERM, Granian().signal_handler_interrupt)
        exit_while_starting()
        signal.raise_signal(number)
        serve_for_ever()

    assert exit_status(work) == 0


def test_no_other_process_is_touched() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    exit_while_starting()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_granian_hears_of_a_stop_once_and_when_it_is_told_and_of_other_signals_at_once() -> None:
    def work() -> None:
        async def serve() -> None:
            heard: list[str] = []
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                loop.add_signal_handler(number, heard.append, number.name)
            stopping, finished = asyncio.Event(), asyncio.Event()

            async def stop() -> None:
                heard.append("stop")
                stopping.set()
                await finished.wait()
                signals.pass_on()

            signals = StopSignals(stop)
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)
            await stopping.wait()
            os.kill(os.getpid(), signal.SIGUSR1)
            while "SIGUSR1" not in heard:
                await asyncio.sleep(0)
            assert heard == ["stop", "SIGUSR1"]
            finished.set()
            while len(heard) < 3:
                await asyncio.sleep(0)
            await signals.close()
            for _ in range(10):
                await asyncio.sleep(0)
            assert heard[:2] == ["stop", "SIGUSR1"]
            assert heard[2:] in (["SIGTERM"], ["SIGINT"])

        asyncio.run(serve())

    assert exit_status(work) == 0


def test_granian_stops_also_where_finishing_failed() -> None:
    def work() -> None:
        async def serve() -> None:
            heard = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, heard.set)

            async def stop() -> None:
                raise ZeroDivisionError

            signals = StopSignals(stop)
            os.kill(os.getpid(), signal.SIGTERM)
            await heard.wait()
            await signals.close()

        asyncio.run(serve())

    assert exit_status(work) == 0
