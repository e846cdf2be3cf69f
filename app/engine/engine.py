"""Carry out steps: admit → load → plan → run → sample → commit, and say what each run brought.

Single-threaded and synchronous; `worker` gives it a thread. A decoder failure ends the
sequences of that run and nothing else. Whatever goes wrong while one sequence is made or sampled
ends that one alone; what nobody foresaw is logged with its traceback too.
"""

import time
from collections.abc import Callable, Iterator

from app.contract.sampling import FinishReason
from app.engine.batch import chunk_input, decode_input, draft_input, slot_of
from app.engine.drafts import Drafts
from app.engine.failures import unforeseen
from app.engine.pacing import Pacer
from app.engine.prefix_cache import block_keys
from app.engine.readout import note_prompt, take_token
from app.engine.scheduler import Scheduler, StepPlan
from app.engine.sequence import (
    EngineRequest,
    PromptState,
    Sequence,
    TokenEvent,
    check_request,
)
from app.errors import Error
from app.runtime.decoder import BLOCK_TOKENS, Decoder, FloatArray, StepInput

Events = list[tuple[int, TokenEvent]]
"""(request id, event), in order."""


class Engine:
    """All sequences of one decoder."""

    def __init__(
        self,
        decoder: Decoder,
        pacer: Pacer | None = None,
        *,
        draft_tokens: int = 0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty.

        Args:
            decoder: belongs to the engine from now on.
            pacer: None: one that follows the clock.
            draft_tokens: most tokens to draft at a time for a sequence that decodes alone
                (speculative decoding); 0: none.
            clock_s: for time limits and the pacer.
        """
        self._decoder = decoder
        self._draft_tokens = draft_tokens
        self._pacer = pacer or Pacer()
        self._clock_s = clock_s
        self.fed_tokens = 0
        """Tokens that were fed to the decoder since the start."""
        self._sequences: dict[int, Sequence] = {}
        self.scheduler = Scheduler(
            decoder.slots,
            can_copy_slots=decoder.can_copy_slots,
            pool_blocks=decoder.pool_blocks,
            min_first_chunk=decoder.min_first_chunk,
        )

    @property
    def idle(self) -> bool:
        """Whether a step would do nothing."""
        return not self._sequences

    def add(self, request_id: int, request: EngineRequest) -> None:
        """Queue a request.

        Raises:
            EngineFailure: it can't run on this decoder; nothing was queued.
        """
        check_request(request, self._decoder.capacity, self._decoder.vocab_size)
        try:
            sequence = self._start(request_id, request)
        except Exception as error:
            raise unforeseen("queueing a request", error) from error
        self._sequences[request_id] = sequence
        self.scheduler.add(sequence)

    def abort(self, request_id: int) -> None:
        """Forget a request; one that has ended already is no error, for both cross on the way."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            self.scheduler.remove(sequence)

    def step(self, hand_over: Callable[[Events], None]) -> None:
        """Run one step.

        Args:
            hand_over: gets the events of each decoder run as soon as they are known, before the
                next run begins; never called with none.
        """
        for events in self._runs():
            if events:
                hand_over(events)

    def check(self) -> None:
        """Assert the invariants; tests call it after every scenario."""
        self.scheduler.check()

    def _start(self, request_id: int, request: EngineRequest) -> Sequence:
        vocab_size = self._decoder.vocab_size
        sequence = Sequence.start(request_id, request, vocab_size, self._clock_s())
        # A prompt whose logprobs are wanted must be computed, kept or not. One that is shorter
        # than the first chunk of others rounds differently from them.
        rounds_alike = len(request.prompt_ids) >= self._decoder.min_first_chunk
        if self._decoder.pool_blocks and request.prompt_logprobs is None and rounds_alike:
            sequence.block_keys = block_keys(request.prompt_ids, request.tenant, request.adapter)
        if self._draft_tokens:
            sequence.drafts = Drafts(self._draft_tokens)
        return sequence

    def _runs(self) -> Iterator[Events]:
        """Run one step, pausing after each decoder run with the events that it brought."""
        yield self._end_overdue()
        self._fill_slots()
        plan = self.scheduler.plan(self._pacer.budget)
        started_s = self._clock_s()
        if plan.decode:
            yield self._decode(plan.decode)
        decoded_s = self._clock_s()
        for chunk in plan.prefill:
            if chunk.sequence.prompt_began_s is None:
                yield self._progress(chunk.sequence)
            yield self._run(chunk_input(chunk), [chunk.sequence])
        self._note_times(plan, decoded_s - started_s, self._clock_s() - decoded_s)

    def _fill_slots(self) -> None:
        """Admit who waits, and fill slots with what need not be computed."""
        for move in self.scheduler.admit():
            self._decoder.copy_slot(move.source, move.target, move.num_tokens)
        for load in self.scheduler.loads():
            sequence = load.sequence
            self._decoder.load_blocks(load.blocks, slot_of(sequence), sequence.num_computed)
            num_tokens = len(load.blocks) * BLOCK_TOKENS
            sequence.num_computed += num_tokens
            sequence.cached_tokens += num_tokens

    def _note_times(self, plan: StepPlan, decode_s: float, prefill_s: float) -> None:
        num_decoding = len(plan.decode)
        num_prefilled = sum(chunk.num_tokens for chunk in plan.prefill)
        if not plan.decode:
            self._pacer.note_prefill_only(num_prefilled, prefill_s)
        elif plan.prefill:
            self._pacer.note_mixed(
                num_decoding, plan.num_joining, decode_s, num_prefilled, prefill_s
            )
        else:
            self._pacer.note_decode_only(num_decoding, decode_s)

    def _decode(self, sequences: list[Sequence]) -> Events:
        """Decode one token for each sequence; several for a lone one whose draft is accepted."""
        if len(sequences) == 1:
            draft = self._draft(sequences[0])
            if draft:
                return self._verify(sequences[0], draft)
        return self._run(decode_input(sequences), sequences)

    def _draft(self, sequence: Sequence) -> list[int]:
        """Draft the next tokens, no more than fit the slot and may still be generated."""
        if sequence.drafts is None:
            return []
        room = min(
            self._decoder.capacity - sequence.num_computed,
            sequence.request.max_tokens - sequence.num_generated,
        )
        return sequence.drafts.propose(sequence.token_ids)[: max(room - 1, 0)]

    def _verify(self, sequence: Sequence, draft: list[int]) -> Events:
        """Feed the last token and its draft; go on as far as the draft is accepted.

        Each token is sampled from its own logits and compared, so the draft decides how many
        come in one run, and never which.
        """
        events: Events = []
        try:
            [logits] = self._feed(draft_input(sequence, draft))
            for row, drafted in zip(logits, [*draft, None], strict=True):
                sequence.num_computed += 1
                events += self._advance(sequence, row)
                if sequence.slot is None or sequence.token_ids[-1] != drafted:
                    break
        except Error as failure:
            return [*events, self._fail(sequence, failure)]
        if sequence.drafts is not None:
            num_tokens = len(sequence.token_ids)
            sequence.drafts.note(len(draft), len(events) - 1, num_tokens)
        return events

    def _run(self, step: StepInput, sequences: list[Sequence]) -> Events:
        """Feed the step's tokens and sample where a sequence has no more to feed."""
        try:
            logits = self._feed(step)
        except Error as failure:
            return [self._fail(sequence, failure) for sequence in sequences]
        events: Events = []
        for sequence in sequences:
            row = slot_of(sequence) - step.first_slot  # the batch begins at that slot
            events += self._take(sequence, int(step.num_new[row]), logits[row])
        return events

    def _feed(self, step: StepInput) -> FloatArray:
        self.fed_tokens += int(step.num_new.sum())
        return self._decoder.run(step)

    def _take(self, sequence: Sequence, num_new: int, logits: FloatArray) -> Events:
        """A run fed `num_new` of a sequence's tokens and gave logits [L, V]: go on from there."""
        try:
            if sequence.prefilling:
                note_prompt(sequence, logits[:num_new])
            prefilled = sequence.prefilling
            sequence.num_computed += num_new
            progress: Events = []
            if prefilled:
                self._keep_blocks(sequence)
                progress = self._progress(sequence)
            if sequence.prefilling:
                return progress
            # L is 1, or as wide as the run: then what is past the new tokens is padding
            return progress + self._advance(sequence, logits[min(num_new, len(logits)) - 1])
        except Error as failure:
            return [self._fail(sequence, failure)]

    def _progress(self, sequence: Sequence) -> Events:
        """Tell how far a prompt has come, if its request asks."""
        if not sequence.request.progress:
            return []
        now_s = self._clock_s()
        if sequence.prompt_began_s is None:
            sequence.prompt_began_s = now_s
        time_s = now_s - sequence.prompt_began_s
        state = PromptState(sequence.num_computed, sequence.cached_tokens, time_s)
        return [(sequence.request_id, TokenEvent(None, prompt=state))]

    def _keep_blocks(self, sequence: Sequence) -> None:
        """Keep the blocks that a chunk completed for prompts that begin alike."""
        whole = min(sequence.num_computed // BLOCK_TOKENS, len(sequence.block_keys))
        if whole > sequence.num_kept:
            sequence.num_kept = whole
            slot = slot_of(sequence)
            for index, place in self.scheduler.prefixes.extend(sequence.block_keys[:whole]):
                self._decoder.save_block(slot, index * BLOCK_TOKENS, place)

    def _advance(self, sequence: Sequence, row: FloatArray) -> Events:
        """Sample a sequence's next token from its logits [V] and see whether it is the last.

        Raises:
            Error: sampling failed.
        """
        request = sequence.request
        token, ended, logprobs = take_token(sequence, row)
        reason = None
        if token in request.stop_ids:
            reason = FinishReason.STOP
        # The last sampled token is never fed, so a full cache still gives one more token.
        elif not ended and (
            sequence.num_generated == request.max_tokens
            or sequence.num_computed == self._decoder.capacity
        ):
            reason = FinishReason.LENGTH
        prompt_logprobs = tuple(sequence.prompt_logprobs)
        sequence.prompt_logprobs.clear()  # they go with the first event alone
        cached_tokens = sequence.cached_tokens if sequence.num_generated == 1 else 0
        events = [TokenEvent(token, reason, None, logprobs, prompt_logprobs, cached_tokens)]
        if ended and reason is None:
            # on its own: `stop` beside a token says that the token is a stop id
            reason = FinishReason.STOP
            events.append(TokenEvent(None, reason))
        if reason is not None:
            self.abort(sequence.request_id)
        return [(sequence.request_id, event) for event in events]

    def _fail(self, sequence: Sequence, failure: Error) -> tuple[int, TokenEvent]:
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
