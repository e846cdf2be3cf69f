"""The engine's thread: takes commands, runs steps, hands up what they bring.

Commands go down through one locked list. What happens comes up in calls on the event loop: one
per decoder run that brought events, and one per step that admitted requests.

Knows no text and nothing of who waits for the events.
"""

import asyncio
import logging
import threading
from bisect import bisect_left
from collections.abc import Callable
from functools import partial

import msgspec

from app.contract.sampling import FinishReason
from app.engine.engine import Engine, Events
from app.engine.sequence import EngineRequest, Sequence, TokenEvent
from app.engine_gauges import STEP_TOKENS
from app.errors import EngineFailure

logger = logging.getLogger(__name__)


class EngineLoad(msgspec.Struct, frozen=True):
    """A snapshot of what the engine is doing."""

    slots: int
    running: int
    """Requests that hold a slot."""
    waiting: int
    """Requests that wait for one."""
    steps: int
    """Steps so far: a number that stands still while requests run is a stuck engine."""
    kv_tokens: int = 0
    """Tokens that the requests with a slot have in the KV cache."""
    step_tokens: tuple[int, ...] = (0,) * (len(STEP_TOKENS) + 1)
    """Steps by how many tokens they fed; see `EngineState`."""
    fed_tokens: int = 0
    """Tokens that all steps fed."""


class _Add(msgspec.Struct, frozen=True):
    request_id: int
    request: EngineRequest


class _Abort(msgspec.Struct, frozen=True):
    request_id: int


class _Stop(msgspec.Struct, frozen=True):
    pass


class Worker:
    """An `Engine` on a thread of its own; the public methods may be called on any thread.

    `load` and `step_started_s` are the only things that two threads see. Each is one reference to
    an immutable value, which the engine's thread alone replaces, so a reader gets the value from
    before or from after a step and never a mixture of both. They are not messages, for a step that
    never ends sends none.
    """

    def __init__(
        self,
        engine: Engine,
        slots: int,
        *,
        deliver: Callable[[Events, float], None],
        note_admitted: Callable[[frozenset[int], float], None],
        note_broken: Callable[[Exception], None],
        clock_s: Callable[[], float],
    ) -> None:
        """Start the thread. What it calls, it calls on the event loop that is running now.

        Args:
            engine: belongs to the thread from now on.
            slots: how many the engine's decoder has.
            deliver: gets the events of a decoder run, and when its step started.
            note_admitted: gets the ids of requests that got a slot in a step, and when it started.
            note_broken: gets why the thread has ended by itself.
            clock_s: tells when steps start.
        """
        self.load = EngineLoad(slots, running=0, waiting=0, steps=0)
        """The snapshot taken after the latest step, or since then when a request ended."""
        self.step_started_s: float | None = None
        """When the step under way started; None while there is none."""
        self._engine = engine
        self._deliver = deliver
        self._note_admitted = note_admitted
        self._note_broken = note_broken
        self._clock_s = clock_s
        self._loop = asyncio.get_running_loop()
        self._in_slots: frozenset[int] = frozenset()
        self._step_tokens = list(self.load.step_tokens)
        self._fed_tokens = 0
        self._commands: list[_Add | _Abort | _Stop] = []
        self._has_commands = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def add(self, request_id: int, request: EngineRequest) -> None:
        """Queue a request; the next step knows it."""
        self._send(_Add(request_id, request))

    def abort(self, request_id: int) -> None:
        """Drop a request, if it hasn't ended; the next step does without it."""
        self._send(_Abort(request_id))

    def stop(self) -> None:
        """Let the thread end after the step under way; it does nothing after that."""
        self._send(_Stop())

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _send(self, command: _Add | _Abort | _Stop) -> None:
        with self._has_commands:
            self._commands.append(command)
            self._has_commands.notify()

    # On the engine's thread from here on.

    def _work(self) -> None:
        try:
            while self._obey(self._receive()):
                started_s = self.step_started_s = self._clock_s()
                self._engine.step(partial(self._hand_up, started_s))
                self._note_step(started_s)
                self.step_started_s = None
        except Exception as failure:
            logger.exception("engine_broken")
            self._loop.call_soon_threadsafe(self._note_broken, failure)

    def _receive(self) -> list[_Add | _Abort | _Stop]:
        """Take all commands there are; wait for one while there is nothing to run."""
        with self._has_commands:
            while self._engine.idle and not self._commands:
                self._has_commands.wait()
            commands, self._commands = self._commands, []
        return commands

    def _obey(self, commands: list[_Add | _Abort | _Stop]) -> bool:
        """Carry out commands in order; return whether to go on."""
        for command in commands:
            match command:
                case _Add(request_id, request):
                    self._add(request_id, request)
                case _Abort(request_id):
                    self._engine.abort(request_id)
                case _Stop():
                    return False
        return True

    def _add(self, request_id: int, request: EngineRequest) -> None:
        try:
            self._engine.add(request_id, request)
        except EngineFailure as failure:
            ended = TokenEvent(None, FinishReason.ERROR, failure)
            self._hand_up(self._clock_s(), [(request_id, ended)])

    def _hand_up(self, step_started_s: float, events: Events) -> None:
        if any(event.finish_reason is not None for _, event in events):
            # Whoever hears of an end must not find the request still running.
            self._snapshot(self.load.steps)
        self._loop.call_soon_threadsafe(self._deliver, events, step_started_s)

    def _snapshot(self, num_steps: int) -> list[Sequence]:
        """Replace `load`; return what runs."""
        running = self._engine.scheduler.running
        self.load = EngineLoad(
            slots=self.load.slots,
            running=len(running),
            waiting=self._engine.scheduler.num_waiting,
            steps=num_steps,
            kv_tokens=sum(sequence.num_computed for sequence in running),
            step_tokens=tuple(self._step_tokens),
            fed_tokens=self._fed_tokens,
        )
        return running

    def _note_step(self, step_started_s: float) -> None:
        fed = self._engine.fed_tokens - self._fed_tokens
        if fed:
            self._fed_tokens += fed
            self._step_tokens[bisect_left(STEP_TOKENS, fed)] += 1
        running = self._snapshot(self.load.steps + 1)
        in_slots = frozenset(sequence.request_id for sequence in running)
        if admitted := in_slots - self._in_slots:
            self._loop.call_soon_threadsafe(self._note_admitted, admitted, step_started_s)
        self._in_slots = in_slots
