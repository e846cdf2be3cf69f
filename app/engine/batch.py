"""Turn a plan's sequences into the arrays of a decoder run.

Knows rows and counters, not what the tokens mean.
"""

import numpy as np

from app.engine.scheduler import Chunk
from app.engine.sequence import Sequence
from app.runtime.decoder import StepInput


def decode_input(sequences: list[Sequence]) -> StepInput:
    """One new token for each sequence, over the leading rows up to the highest of them.

    A row in between that does not decode takes part with no new token: its cache stays.
    """
    rows = 1 + max(slot_of(sequence) for sequence in sequences)
    token_ids = np.zeros((rows, 1), np.int64)
    num_new = np.zeros(rows, np.int32)
    num_cached = np.zeros(rows, np.int32)
    for sequence in sequences:
        slot = slot_of(sequence)
        token_ids[slot, 0] = sequence.token_ids[sequence.num_cached]
        num_new[slot] = 1
        num_cached[slot] = sequence.num_cached
    return StepInput(0, token_ids, num_new, num_cached)


def chunk_input(chunk: Chunk) -> StepInput:
    """The chunk's tokens for the one row of its sequence; with all logits if it asks for them."""
    sequence = chunk.sequence
    start = sequence.num_cached
    return StepInput(
        first_row=slot_of(sequence),
        token_ids=np.array([sequence.token_ids[start : start + chunk.num_tokens]], np.int64),
        num_new=np.array([chunk.num_tokens], np.int32),
        num_cached=np.array([start], np.int32),
        all_logits=sequence.request.prompt_logprobs is not None,
    )


def draft_input(sequence: Sequence, draft: list[int]) -> StepInput:
    """The sequence's last token and a guess of those that follow, with all logits."""
    fed = [sequence.token_ids[sequence.num_cached], *draft]
    return StepInput(
        first_row=slot_of(sequence),
        token_ids=np.array([fed], np.int64),
        num_new=np.array([len(fed)], np.int32),
        num_cached=np.array([sequence.num_cached], np.int32),
        all_logits=True,
    )


def slot_of(sequence: Sequence) -> int:
    """The row of a sequence that runs."""
    assert sequence.slot is not None, f"request {sequence.request_id} has no row"
    return sequence.slot
