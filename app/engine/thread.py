"""The event loop's side of an engine that runs on a thread of its own.

Everything here runs on the event loop: requests get a place, go down to the `Worker`, and their
events come up to their streams and to the metrics.

Knows no text and no HTTP.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from functools import partial

import msgspec

from app.contract.sampling import FinishReason
from app.engine.engine import Engine, Events
from app.engine.failures import check_goes_on
from app.engine.places import Places, Room
from app.engine.sequence import EngineRequest, TokenEvent
from app.engine.stream import TokenStream
from app.engine.worker import EngineLoad, Worker
from app.engine_gauges import EngineState
from app.errors import EngineFailure, Error, ShuttingDown
from app.metrics import Metrics, ModelMetrics, RequestMeter
from app.runtime.decoder import BLOCK_TOKENS, Decoder

logger = logging.getLogger(__name__)


class _Live(msgspec.Struct):
    """A request that has not ended."""

    client: str
    stream: TokenStream
    meter: RequestMeter
    has_slot: bool = False


class EngineThread:
    """An `Engine` on a thread of its own, with a bounded number of requests."""

    def __init__(
        self,
        decoder: Decoder,
        max_waiting: int,
        metrics: ModelMetrics | None = None,
        *,
        draft_tokens: int = 0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread, from the event loop that requests come from.

        Args:
            decoder: belongs to the engine from now on.
            max_waiting: requests that may wait for a slot.
            metrics: None: counted for nobody.
            draft_tokens: most tokens to draft at a time for a lone sequence; 0: none.
            clock_s: for all times and time limits.
        """
        self.capacity = decoder.capacity
        self._decoder = decoder
        self._clock_s = clock_s
        self._metrics = metrics or Metrics().model("")
        self._room = Room(decoder.slots, max_waiting, clock_s)
        self._live: dict[int, _Live] = {}
        self._ids = itertools.count()
        self._draining = False
        self._closed = False
        self._failure: Exception | None = None
        self._idle = asyncio.Event()
        self._idle_since_s = clock_s()
        self._idle.set()
        self._detach_metrics = self._metrics.attach(self._state)
        engine = Engine(decoder, draft_tokens=draft_tokens, clock_s=clock_s)
        self._worker = Worker(
            engine,
            decoder.slots,
            deliver=self._deliver,
            note_admitted=self._note_admitted,
            note_broken=self._break,
            clock_s=clock_s,
        )

    @property
    def load(self) -> EngineLoad:
        """A snapshot, taken since the latest step and the latest end of a request."""
        return self._worker.load

    @property
    def step_age_s(self) -> float:
        """Seconds that the step under way has taken; 0 while there is none."""
        started_s = self._worker.step_started_s
        return 0.0 if started_s is None else self._clock_s() - started_s

    @property
    def failure(self) -> Exception | None:
        """Why the engine can't go on; None while it can."""
        return self._failure

    @property
    def num_requests(self) -> int:
        """Requests that run, wait or are being prepared."""
        return self._room.num_held

    @property
    def idle_since_s(self) -> float | None:
        """When the last request ended, on the engine's clock; None while there are some."""
        return None if self.num_requests else self._idle_since_s

    def reserve(self, count: int = 1, client: str = "") -> Places:
        """Hold room for `count` requests of a client; use it as a context manager.

        A client may hold every waiting place while nobody else wants one, and at most half of
        them otherwise; see `Room`.

        Args:
            count: requests that are to be submitted, each with this `client`.
            client: who asks, user or address; "" stands for everybody without a name.

        Raises:
            BatchTooLarge: there is never room for so many.
            Overloaded: there is not room for all of them now, or not for this client.
            ShuttingDown: the engine takes nothing new.
            EngineFailure: the engine can't go on.
        """
        check_goes_on(self._failure, "the engine")
        if self._draining:
            raise ShuttingDown
        self._room.take(client, count)
        self._idle.clear()
        # of the requests that come together, the first tells how many they are
        choices = itertools.chain([count], itertools.repeat(0))
        return Places(
            count,
            lambda request: self._submit(client, request, next(choices)),
            partial(self._give_back, client),
        )

    async def wait_idle(self) -> None:
        """Wait until no request runs, waits or is being prepared; more may come afterwards."""
        await self._idle.wait()

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
        self._worker.stop()
        await asyncio.to_thread(self._worker.join)
        self._break(ShuttingDown())
        if not self._closed:
            self._closed = True
            self._detach_metrics()
            await asyncio.to_thread(self._decoder.close)

    def _submit(self, client: str, request: EngineRequest, choices: int) -> TokenStream:
        assert request.client == client, "a place is for the client that reserved it"
        check_goes_on(self._failure, "the engine")
        request_id = next(self._ids)
        meter = self._metrics.submitted(
            len(request.prompt_ids),
            self._clock_s(),
            max_tokens=request.max_tokens,
            choices=choices,
        )
        stream = TokenStream(lambda reason: self._abort(request_id, reason), meter)
        self._live[request_id] = _Live(client, stream, meter)
        self._room.add(client)
        self._worker.add(request_id, request)
        return stream

    def _give_back(self, client: str, count: int) -> None:
        self._room.waiting_ended(client, count)
        self._note_idle()

    def _abort(self, request_id: int, reason: FinishReason) -> None:
        live = self._live.get(request_id)
        if live is not None:
            self._end(request_id, live, reason, self._clock_s())
            self._worker.abort(request_id)
            self._note_idle()

    def _end(self, request_id: int, live: _Live, reason: FinishReason, now_s: float) -> None:
        del self._live[request_id]
        live.meter.ended(reason, now_s)
        if live.has_slot:
            self._room.running_ended()
        else:
            self._room.waiting_ended(live.client, 1)

    def _note_idle(self) -> None:
        if not self.num_requests:
            self._idle_since_s = self._clock_s()
            self._idle.set()

    def _deliver(self, events: Events, step_started_s: float) -> None:
        now_s = self._clock_s()
        for request_id, event in events:
            live = self._live.get(request_id)
            if live is None:  # aborted while the event was on its way
                continue
            if event.prompt is not None:
                self._admit(live, step_started_s)
            if event.token_id is not None:
                self._admit(live, step_started_s)
                live.meter.token(now_s, event.cached_tokens)
            if event.finish_reason is not None:
                self._end(request_id, live, event.finish_reason, now_s)
            live.stream.put(event)
        self._note_idle()

    def _note_admitted(self, request_ids: frozenset[int], step_started_s: float) -> None:
        for request_id in request_ids:
            live = self._live.get(request_id)
            if live is not None:
                self._admit(live, step_started_s)

    def _admit(self, live: _Live, step_started_s: float) -> None:
        """Take note of a slot; a request's first event or the end of the step may tell it first."""
        if not live.has_slot:
            live.has_slot = True
            self._room.admitted(live.client)
            live.meter.admitted(step_started_s)

    def _break(self, failure: Exception) -> None:
        """The thread has ended: answer everybody who waits, take nothing new."""
        self._failure = failure
        stopped = EngineFailure(f"the engine has stopped: {failure}")
        error = failure if isinstance(failure, Error) else stopped
        ended = TokenEvent(None, FinishReason.ERROR, error)
        self._deliver([(request_id, ended) for request_id in self._live], self._clock_s())

    def _state(self) -> EngineState:
        load = self.load
        return EngineState(
            slots=load.slots,
            running=load.running,
            # The engine's own number is as old as its latest step.
            waiting=max(0, self.num_requests - load.running),
            kv_usage=load.kv_tokens / (load.slots * self.capacity),
            steps=load.steps,
            step_tokens=load.step_tokens,
            fed_tokens=load.fed_tokens,
            block_tokens=BLOCK_TOKENS,
            slot_blocks=load.slots * self.capacity // BLOCK_TOKENS,
            kept_blocks=self._decoder.pool_blocks,
        )
