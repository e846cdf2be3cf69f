"""Turn a plan's sequences into the arrays of a decoder run.

Knows slots and counters, not what the tokens mean.
"""

import numpy as np

from app.engine.scheduler import Chunk
from app.engine.sequence import Sequence
from app.runtime.decoder import StepInput


def decode_input(sequences: list[Sequence]) -> StepInput:
    """Feed one new token for each sequence, over all slots from 0 to the highest of theirs.

    A slot in between that does not decode takes part with no new token: its cache stays.
    """
    batch = 1 + max(slot_of(sequence) for sequence in sequences)
    token_ids = np.zeros((batch, 1), np.int64)
    num_new = np.zeros(batch, np.int32)
    num_computed = np.zeros(batch, np.int32)
    adapter_ids = np.zeros(batch, np.int64)
    for sequence in sequences:
        slot = slot_of(sequence)
        token_ids[slot, 0] = sequence.token_ids[sequence.num_computed]
        num_new[slot] = 1
        num_computed[slot] = sequence.num_computed
        adapter_ids[slot] = sequence.request.adapter
    return StepInput(0, token_ids, num_new, num_computed, adapter_ids=adapter_ids)


def chunk_input(chunk: Chunk) -> StepInput:
    """Feed a prompt chunk; with all logits if its request wants logprobs of the prompt."""
    sequence = chunk.sequence
    start = sequence.num_computed
    return StepInput(
        first_slot=slot_of(sequence),
        token_ids=np.array([sequence.token_ids[start : start + chunk.num_tokens]], np.int64),
        num_new=np.array([chunk.num_tokens], np.int32),
        num_computed=np.array([start], np.int32),
        all_logits=sequence.request.prompt_logprobs is not None,
        adapter_ids=np.array([sequence.request.adapter], np.int64),
    )


def draft_input(sequence: Sequence, draft: list[int]) -> StepInput:
    """Feed a sequence's last token and its draft tokens, with all logits to verify them by."""
    fed = [sequence.token_ids[sequence.num_computed], *draft]
    return StepInput(
        first_slot=slot_of(sequence),
        token_ids=np.array([fed], np.int64),
        num_new=np.array([len(fed)], np.int32),
        num_computed=np.array([sequence.num_computed], np.int32),
        all_logits=True,
        adapter_ids=np.array([sequence.request.adapter], np.int64),
    )


def slot_of(sequence: Sequence) -> int:
    """Give the slot of a sequence that has been admitted."""
    assert sequence.slot is not None, f"request {sequence.request_id} has no slot"
    return sequence.slot
