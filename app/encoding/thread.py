"""The event loop's side of an encoder that runs on a thread of its own.

Jobs go down through one locked queue; what a run brings comes up in a call on the event loop. The
thread steps back for others (`runtime.background`): a run's length is bounded, so what waits is
never long behind one. Knows no text and no HTTP.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from app.encoding.jobs import Job, Jobs, Taken
from app.engine.failures import check_goes_on
from app.engine.places import Room
from app.engine_gauges import EngineState
from app.errors import EngineFailure, Error, ShuttingDown
from app.metrics import Metrics, ModelMetrics, RequestMeter
from app.runtime.background import step_back
from app.runtime.encoder import Encoder, Row, Vector

logger = logging.getLogger(__name__)


class EncoderLoad(msgspec.Struct, frozen=True):
    """What an encoder is doing: jobs that have begun, and those that haven't."""

    running: int
    waiting: int
    runs: int
    """Since its start."""


class _Waiting(msgspec.Struct):
    """A job that somebody waits for."""

    done: asyncio.Future[list[Vector]]
    meter: RequestMeter
    begun: bool = False


class EncoderThread:
    """An `Encoder` on a thread of its own, with a bounded number of jobs."""

    def __init__(
        self,
        encoder: Encoder,
        max_waiting: int,
        run_tokens: int,
        metrics: ModelMetrics | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the thread, from the event loop that jobs come from.

        Args:
            encoder: belongs to the thread from now on.
            max_waiting: jobs that may wait beside the one that runs.
            run_tokens: tokens of a run, padding included.
            metrics: None: counted for nobody.
            clock_s: for all times.
        """
        self.capacity = encoder.capacity
        self._encoder = encoder
        self._room = Room(1, max_waiting, clock_s)  # a job counts as waiting until it ends
        self._clock_s = clock_s
        self._metrics = metrics or Metrics().model("")
        self._waiting: dict[Job, _Waiting] = {}
        self._failure: Exception | None = None
        self._draining = self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._idle_since_s = clock_s()
        self._runs = 0
        self._run_started_s: float | None = None
        self._loop = asyncio.get_running_loop()
        self._jobs = Jobs(run_tokens)
        self._has_jobs = threading.Condition()
        self._stopping = False
        self._detach_metrics = self._metrics.attach(self._state)
        self._thread = threading.Thread(target=self._work, name="encoder", daemon=True)
        self._thread.start()

    @property
    def load(self) -> EncoderLoad:
        """What it is doing now."""
        begun = sum(waiting.begun for waiting in self._waiting.values())
        return EncoderLoad(begun, self.num_requests - begun, self._runs)

    @property
    def step_age_s(self) -> float:
        """Seconds that the run under way has taken; 0 while there is none."""
        started_s = self._run_started_s
        return 0.0 if started_s is None else self._clock_s() - started_s

    @property
    def failure(self) -> Exception | None:
        """Why it can't go on; None while it can."""
        return self._failure

    @property
    def num_requests(self) -> int:
        """Jobs that run, wait or are being prepared: each holds its place until it ends."""
        return self._room.num_held

    @property
    def idle_since_s(self) -> float | None:
        """When the last job ended; None while there are some."""
        return None if self.num_requests else self._idle_since_s

    def reserve(self, client: str) -> "Place":
        """Hold room for a job while it is prepared; use it as a context manager.

        Raises:
            Overloaded: as many jobs wait as may, or more than the client's share.
            ShuttingDown: it takes nothing new.
            EngineFailure: it can't go on.
        """
        check_goes_on(self._failure, "the encoder")
        if self._draining:
            raise ShuttingDown
        self._room.take(client, 1)
        self._idle.clear()
        return Place(self._encode, partial(self._give_back, client))

    async def wait_idle(self) -> None:
        """Wait until no job runs, waits or is being prepared; more may come afterwards."""
        await self._idle.wait()

    async def stop(self, drain_timeout_s: float | None) -> None:
        """Refuse new jobs, let the others finish for a while, then end them and the thread.

        May be called again, with less patience, while it is under way.

        Args:
            drain_timeout_s: None waits until the last job has ended.
        """
        self._draining = True
        try:
            async with asyncio.timeout(drain_timeout_s):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("drain_timeout requests=%d", self.num_requests)
        with self._has_jobs:
            self._stopping = True
            self._has_jobs.notify()
        await asyncio.to_thread(self._thread.join)
        self._break(ShuttingDown())
        if not self._closed:
            self._closed = True
            self._detach_metrics()
            await asyncio.to_thread(self._encoder.close)

    async def _encode(self, client: str, rows: Sequence[Row]) -> list[Vector]:
        check_goes_on(self._failure, "the encoder")
        job = Job(client, rows)
        meter = self._metrics.submitted(sum(map(len, rows)), self._clock_s())
        waiting = self._waiting[job] = _Waiting(self._loop.create_future(), meter)
        with self._has_jobs:
            self._jobs.add(job)
            self._has_jobs.notify()
        try:
            vectors = await waiting.done
        except asyncio.CancelledError:
            job.given_up = True
            meter.ended("cancelled", self._clock_s())
            raise
        except Error:
            meter.ended("error", self._clock_s())
            raise
        finally:
            del self._waiting[job]
        meter.encoded(self._clock_s())
        return vectors

    def _give_back(self, client: str) -> None:
        self._room.waiting_ended(client, 1)
        if not self.num_requests:
            self._idle_since_s = self._clock_s()
            self._idle.set()

    def _deliver(self, taken: Taken, vectors: list[Vector] | Error, started_s: float) -> None:
        """Put the vectors of a run in their places; whose last one it is has its answer."""
        self._runs += 1
        for number, (job, index) in enumerate(taken):
            waiting = self._waiting.get(job)
            if waiting is None or waiting.done.done():
                continue
            if not waiting.begun:
                waiting.begun = True
                waiting.meter.admitted(started_s)
            if isinstance(vectors, Error):
                job.given_up = True
                waiting.done.set_exception(vectors)
                continue
            job.vectors[index] = vectors[number]
            job.unfinished -= 1
            if not job.unfinished:
                waiting.done.set_result([v for v in job.vectors if v is not None])

    def _break(self, failure: Exception) -> None:
        """The thread has ended: answer everybody who waits, take nothing new."""
        self._failure = failure
        stopped = EngineFailure(f"the encoder has stopped: {failure}")
        for waiting in self._waiting.values():
            if not waiting.done.done():
                waiting.done.set_exception(failure if isinstance(failure, Error) else stopped)

    def _state(self) -> EngineState:
        load = self.load
        return EngineState(1, load.running, load.waiting, kv_usage=0.0, steps=load.runs)

    # On the encoder's thread from here on.

    def _work(self) -> None:
        step_back()
        try:
            while taken := self._next():
                started_s = self._run_started_s = self._clock_s()
                vectors: list[Vector] | Error
                try:
                    vectors = self._encoder.run([job.rows[index] for job, index in taken])
                except EngineFailure as failure:  # of these texts; others may run
                    logger.exception("encoder_run_failed")
                    vectors = failure
                self._run_started_s = None
                self._loop.call_soon_threadsafe(self._deliver, taken, vectors, started_s)
        except Exception as failure:
            logger.exception("encoder_broken")
            self._loop.call_soon_threadsafe(self._break, failure)

    def _next(self) -> Taken:
        """Wait for the texts of the next run; empty when the thread shall end."""
        with self._has_jobs:
            while True:
                if self._stopping:
                    self._jobs.clear()
                    return []
                if taken := self._jobs.take():
                    return taken
                self._has_jobs.wait()


class Place:
    """Room for one job; a context manager, at whose exit it goes back."""

    def __init__(
        self,
        encode: Callable[[str, Sequence[Row]], Awaitable[list[Vector]]],
        give_back: Callable[[], None],
    ) -> None:
        self.encode = encode
        """Makes the vectors of a client's texts, in their order.

        Raises EngineFailure or ShuttingDown; may be cancelled, and nothing more is run for it.
        """
        self._give_back = give_back

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
