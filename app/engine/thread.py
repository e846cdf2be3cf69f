"""The one hand-over between the event loop and the engine's thread.

Everything that crosses is a message: commands go down through one locked list, events come up
through `call_soon_threadsafe`, one call a decoder run. Nothing is shared, so the engine could
become a process. Methods belong to the event loop unless they say otherwise.

Knows no text and no HTTP.
"""

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec

from app.contract.sampling import FinishReason
from app.engine.engine import Engine, Events
from app.engine.sequence import EngineRequest, TokenEvent
from app.engine_gauges import EngineState
from app.errors import BatchTooLarge, EngineFailure, Error, Overloaded, ShuttingDown
from app.metrics import Metrics, ModelMetrics, RequestMeter
from app.runtime.decoder import Decoder

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


class _Add(msgspec.Struct, frozen=True):
    request_id: int
    request: EngineRequest


class _Abort(msgspec.Struct, frozen=True):
    request_id: int


class _Stop(msgspec.Struct, frozen=True):
    pass


class TokenStream:
    """The event loop's end of one request."""

    def __init__(self, abort: Callable[[FinishReason], None]) -> None:
        self._abort = abort
        self._events: list[TokenEvent] = []
        self._arrived = asyncio.Event()

    async def next(self) -> list[TokenEvent]:
        """Wait for at least one event and return all there are; the last one says it is."""
        await self._arrived.wait()
        events, self._events = self._events, []
        self._arrived.clear()
        return events

    def abort(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """End the request at the next step; its slot is free then. Harmless when repeated.

        Args:
            reason: what it counts as; the text layer alone knows of a stop string.
        """
        self._abort(reason)

    def put(self, event: TokenEvent) -> None:
        """Deliver an event; called by the engine's hand-over alone."""
        self._events.append(event)
        self._arrived.set()


class Places:
    """Room for some requests, held while they are prepared; unused places go back at exit."""

    def __init__(
        self,
        count: int,
        submit: Callable[[EngineRequest], TokenStream],
        give_back: Callable[[int], None],
    ) -> None:
        self._left = count
        self._submit = submit
        self._give_back = give_back

    def submit(self, request: EngineRequest) -> TokenStream:
        """Hand a request to the engine in one of the places.

        Raises:
            EngineFailure: the engine has stopped meanwhile.
        """
        assert self._left > 0, "every reserved place is used"
        stream = self._submit(request)
        self._left -= 1
        self._give_back(1)
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back(self._left)
        self._left = 0


class _Live(msgspec.Struct, frozen=True):
    """A request that has not ended."""

    stream: TokenStream
    meter: RequestMeter


class EngineThread:
    """An `Engine` on a thread of its own, with a bounded number of requests."""

    def __init__(
        self,
        decoder: Decoder,
        max_waiting: int,
        metrics: ModelMetrics | None = None,
        *,
        draft_tokens: int = 0,
    ) -> None:
        self.capacity = decoder.capacity
        self.max_requests = decoder.slots + max_waiting
        self._decoder = decoder
        self._engine = Engine(decoder, draft_tokens=draft_tokens)
        self._load = EngineLoad(decoder.slots, 0, 0, 0)
        self._step_started_s: float | None = None
        self._in_slots: frozenset[int] = frozenset()
        self._metrics = metrics or Metrics().model("")
        self._live: dict[int, _Live] = {}
        self._ids = itertools.count()
        self._reserved = 0
        self._draining = False
        self._closed = False
        self._failure: Exception | None = None
        self._idle = asyncio.Event()
        self._idle_since_s = time.monotonic()
        self._idle.set()
        self._commands: list[_Add | _Abort | _Stop] = []
        self._has_commands = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._detach_metrics = self._metrics.attach(self._state)
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def load(self) -> EngineLoad:
        """The snapshot taken after the latest step."""
        return self._load

    @property
    def step_age_s(self) -> float:
        """Seconds that the step under way has taken; 0 while there is none."""
        started_s = self._step_started_s
        return 0.0 if started_s is None else time.monotonic() - started_s

    @property
    def failure(self) -> Exception | None:
        """Why the engine can't go on; None while it can."""
        return self._failure

    @property
    def num_requests(self) -> int:
        """Requests that run, wait or are being prepared."""
        return len(self._live) + self._reserved

    @property
    def idle_since_s(self) -> float | None:
        """When the last request ended, on the monotonic clock; None while there are some."""
        return None if self.num_requests else self._idle_since_s

    def reserve(self, count: int = 1) -> Places:
        """Hold room for `count` requests; use it as a context manager.

        Raises:
            BatchTooLarge: there is never room for so many.
            Overloaded: there is not room for all of them now.
            ShuttingDown: the engine takes nothing new.
            EngineFailure: the engine can't go on.
        """
        if self._failure is not None:
            raise EngineFailure("the engine has stopped") from self._failure
        if self._draining:
            raise ShuttingDown
        if count > self.max_requests:
            raise BatchTooLarge(count, self.max_requests)
        if self.num_requests + count > self.max_requests:
            raise Overloaded(self.num_requests, self.max_requests)
        self._reserved += count
        self._idle.clear()
        return Places(count, self._submit, self._give_back)

    async def stop(self, drain_timeout_s: float | None) -> None:
        """Refuse new requests, let the others finish for a while, then end them and the thread.

        Requests that are cut off get an event with reason `error`. May be called again, with
        less patience, while it is under way.

        Args:
            drain_timeout_s: None waits until the last request has ended.
        """
        self._draining = True
        try:
            async with asyncio.timeout(drain_timeout_s):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("drain_timeout requests=%d", self.num_requests)
        self._send(_Stop())
        await asyncio.to_thread(self._thread.join)
        self._break(ShuttingDown())
        if not self._closed:
            self._closed = True
            self._detach_metrics()
            await asyncio.to_thread(self._decoder.close)

    def _submit(self, request: EngineRequest) -> TokenStream:
        if self._failure is not None:
            raise EngineFailure("the engine has stopped") from self._failure
        request_id = next(self._ids)
        stream = TokenStream(lambda reason: self._abort(request_id, reason))
        meter = self._metrics.submitted(len(request.prompt_ids), time.monotonic())
        self._live[request_id] = _Live(stream, meter)
        self._send(_Add(request_id, request))
        return stream

    def _give_back(self, count: int) -> None:
        self._reserved -= count
        self._note_idle()

    def _abort(self, request_id: int, reason: FinishReason) -> None:
        live = self._live.pop(request_id, None)
        if live is not None:
            live.meter.ended(reason, time.monotonic())
            self._send(_Abort(request_id))
            self._note_idle()

    def _note_idle(self) -> None:
        if not self.num_requests:
            self._idle_since_s = time.monotonic()
            self._idle.set()

    def _deliver(self, events: Events, step_started_s: float) -> None:
        now_s = time.monotonic()
        for request_id, event in events:
            live = self._live.get(request_id)
            if live is None:  # aborted while the event was on its way
                continue
            if event.token_id is not None:
                # A slot of an earlier step was told of before: `_admitted`.
                live.meter.admitted(step_started_s)
                live.meter.token(now_s, event.cached_tokens)
            if event.finish_reason is not None:
                live.meter.ended(event.finish_reason, now_s)
                del self._live[request_id]
            live.stream.put(event)
        self._note_idle()

    def _admitted(self, request_ids: frozenset[int], step_started_s: float) -> None:
        for request_id in request_ids:
            live = self._live.get(request_id)
            if live is not None:
                live.meter.admitted(step_started_s)

    def _break(self, failure: Exception) -> None:
        """The thread has ended: answer whoever waits, take nothing new."""
        self._failure = failure
        stopped = EngineFailure(f"the engine has stopped: {failure}")
        error = failure if isinstance(failure, Error) else stopped
        ended = TokenEvent(None, FinishReason.ERROR, error)
        self._deliver([(request_id, ended) for request_id in self._live], time.monotonic())

    def _state(self) -> EngineState:
        load = self._load
        return EngineState(
            slots=load.slots,
            running=load.running,
            # The engine's own number is as old as its latest step.
            waiting=max(0, self.num_requests - load.running),
            kv_usage=load.kv_tokens / (load.slots * self.capacity),
            steps=load.steps,
        )

    def _send(self, command: _Add | _Abort | _Stop) -> None:
        with self._has_commands:
            self._commands.append(command)
            self._has_commands.notify()

    # On the engine's thread from here on.

    def _work(self) -> None:
        try:
            while self._obey(self._receive()):
                started_s = self._step_started_s = time.monotonic()
                for events in self._engine.step():
                    if events:
                        self._loop.call_soon_threadsafe(self._deliver, events, started_s)
                self._snapshot(started_s)
                self._step_started_s = None
        except Exception as failure:
            logger.exception("engine_broken")
            self._loop.call_soon_threadsafe(self._break, failure)

    def _receive(self) -> list[_Add | _Abort | _Stop]:
        """All commands there are; waits for one while there is nothing to run."""
        with self._has_commands:
            while self._engine.idle and not self._commands:
                self._has_commands.wait()
            commands, self._commands = self._commands, []
        return commands

    def _obey(self, commands: list[_Add | _Abort | _Stop]) -> bool:
        """Carry out commands in order; whether to go on."""
        for command in commands:
            match command:
                case _Add(request_id, request):
                    self._engine.add(request_id, request)
                case _Abort(request_id):
                    self._engine.abort(request_id)
                case _Stop():
                    return False
        return True

    def _snapshot(self, step_started_s: float) -> None:
        running = self._engine.scheduler.running
        self._load = EngineLoad(
            slots=self._load.slots,
            running=len(running),
            waiting=self._engine.scheduler.num_waiting,
            steps=self._load.steps + 1,
            kv_tokens=sum(sequence.num_cached for sequence in running),
        )
        in_slots = frozenset(sequence.request_id for sequence in running)
        if admitted := in_slots - self._in_slots:
            self._loop.call_soon_threadsafe(self._admitted, admitted, step_started_s)
        self._in_slots = in_slots
