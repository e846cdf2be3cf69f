"""What the engine asks of a model: a batch of new tokens in, logits of the last or of all out.

Knows nothing about requests or sampling. `ort_decoder` is the real one; tests script others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

IdArray = npt.NDArray[np.int64]
CountArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]

BLOCK_TOKENS: Final = 16
"""Tokens of a block of the pool: prompts share their beginnings in multiples of it."""


@dataclass(frozen=True, slots=True)
class StepInput:
    """New tokens for the B consecutive slots from `first_slot` on; row i is slot first_slot + i."""

    first_slot: int
    token_ids: IdArray
    """[B, T], right-padded."""
    num_new: CountArray
    """[B], each 0 … T; a slot with 0 keeps its cache as it is and gets meaningless logits."""
    num_computed: CountArray
    """[B], leading tokens whose keys and values the slot holds before this step."""
    all_logits: bool = False
    """Whether every new token's logits are wanted, not only those of each row's last one."""
    adapter_ids: IdArray | None = None
    """[B], the adapter of each row, see `app.manifest`; None: no row has one."""


class Decoder(Protocol):
    """One loaded model with its KV cache."""

    @property
    def slots(self) -> int:
        """Places in the KV cache, each for the keys and values of one sequence."""

    @property
    def capacity(self) -> int:
        """Tokens that a slot can hold."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""

    @property
    def can_copy_slots(self) -> bool:
        """Whether `copy_slot` is there: a copy must be cheaper than to run past a gap."""

    @property
    def min_first_chunk(self) -> int:
        """Tokens that the first step of a longer prompt must reach; see `app.manifest`."""

    def run(self, step: StepInput) -> FloatArray:
        """Run the decoder once.

        Returns:
            float32 [B, 1, vocab_size]: logits of the last new token of each row; with
            `all_logits` [B, T, vocab_size], meaningless where the tokens are padding. The
            memory is the decoder's: valid until the next call.

        Raises:
            EngineFailure: the inputs were refused or memory ran out. What the slots of this
                step hold afterwards is undefined; other slots are as before.
        """

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` of a slot over another slot."""

    @property
    def pool_blocks(self) -> int:
        """Blocks of `BLOCK_TOKENS` tokens that can be kept beside the slots; 0: none."""

    def save_block(self, slot: int, start: int, block: int) -> None:
        """Copy the block of a slot that begins at token `start` into the pool."""

    def load_blocks(self, blocks: Sequence[int], slot: int, start: int) -> None:
        """Copy blocks of the pool into a slot, one after the other from token `start` on."""

    def close(self) -> None:
        """Give the memory back; the decoder can't be used any more."""
