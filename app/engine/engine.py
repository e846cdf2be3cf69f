"""Carry out steps: plan → run → sample → commit, and say what each run brought.

Single-threaded and synchronous; `thread` gives it a thread. A decoder failure ends the
sequences of that run and nothing else.
"""

import time
from collections.abc import Callable, Iterator

from app.engine.batch import chunk_input, decode_input, slot_of
from app.engine.pacing import Pacer
from app.engine.sampler import sample
from app.engine.scheduler import Scheduler
from app.engine.sequence import EngineRequest, FinishReason, Sequence, TokenEvent
from app.errors import EngineFailure
from app.runtime.decoder import Decoder, StepInput

Events = list[tuple[int, TokenEvent]]
"""(request id, event), in order."""


class Engine:
    """All sequences of one decoder."""

    def __init__(
        self,
        decoder: Decoder,
        pacer: Pacer | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._decoder = decoder
        self._pacer = pacer or Pacer()
        self._clock_s = clock_s
        self._sequences: dict[int, Sequence] = {}
        self.scheduler = Scheduler(decoder.slots, movable_rows=decoder.movable_rows)

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        return not self._sequences

    def add(self, request_id: int, request: EngineRequest) -> None:
        """Queue a request; the caller has checked it against capacity and vocabulary."""
        assert 1 <= len(request.prompt_ids) <= self._decoder.capacity, len(request.prompt_ids)
        sequence = Sequence.start(request_id, request, self._clock_s())
        self._sequences[request_id] = sequence
        self.scheduler.add(sequence)

    def abort(self, request_id: int) -> None:
        """Forget a request; one that has ended already is no error, for both cross on the way."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            self.scheduler.remove(sequence)

    def step(self) -> Iterator[Events]:
        """Run one step and yield the events of each decoder run as soon as they are known."""
        yield self._end_overdue()
        plan = self.scheduler.plan(self._pacer.budget)
        for move in plan.moves:
            self._decoder.copy_row(slot_of(move.sequence), move.target, move.sequence.num_cached)
            move.sequence.slot = move.target
        started_s = self._clock_s()
        if plan.decode:
            yield self._run(decode_input(plan.decode), plan.decode)
        decoded_s = self._clock_s()
        for chunk in plan.prefill:
            yield self._run(chunk_input(chunk), [chunk.sequence])
        if plan.decode:
            self._pacer.note_decode(decoded_s - started_s)
            if plan.prefill:
                num_tokens = sum(chunk.num_tokens for chunk in plan.prefill)
                self._pacer.note_prefill(num_tokens, self._clock_s() - decoded_s)

    def check(self) -> None:
        """Assert the invariants; tests call it after every scenario."""
        self.scheduler.check()

    def _run(self, step: StepInput, sequences: list[Sequence]) -> Events:
        """Feed the step's tokens and sample where a sequence has no more to feed."""
        try:
            logits = self._decoder.run(step)
        except EngineFailure as failure:
            return [self._fail(sequence, failure) for sequence in sequences]
        sampling = {}
        for sequence in sequences:
            row = slot_of(sequence) - step.first_row
            sequence.num_cached += int(step.num_new[row])
            if not sequence.prefilling:
                sampling[row] = sequence
        if not sampling:
            return []
        return [
            self._commit(sampling[row], token) for row, token in sample(logits, sampling).items()
        ]

    def _commit(self, sequence: Sequence, token: int | EngineFailure) -> tuple[int, TokenEvent]:
        if isinstance(token, EngineFailure):
            return self._fail(sequence, token)
        sequence.append(token)
        reason = None
        if token in sequence.request.stop_ids:
            reason = FinishReason.STOP
        # The last sampled token is never fed, so a full cache still gives one more token.
        elif (
            sequence.num_generated == sequence.request.max_tokens
            or sequence.num_cached == self._decoder.capacity
        ):
            reason = FinishReason.LENGTH
        if reason is not None:
            self.abort(sequence.request_id)
        return sequence.request_id, TokenEvent(token, reason)

    def _fail(self, sequence: Sequence, failure: EngineFailure) -> tuple[int, TokenEvent]:
        self.abort(sequence.request_id)
        return sequence.request_id, TokenEvent(None, FinishReason.ERROR, failure)

    def _end_overdue(self) -> Events:
        now_s = self._clock_s()
        overdue = [
            request_id
            for request_id, sequence in self._sequences.items()
            if sequence.deadline_s is not None and sequence.deadline_s <= now_s
        ]
        for request_id in overdue:
            self.abort(request_id)
        return [(request_id, TokenEvent(None, FinishReason.LENGTH)) for request_id in overdue]
