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
"""Tokens of a block of the pool: what prompts share counts in steps of so many."""


@dataclass(frozen=True, slots=True)
class StepInput:
    """New tokens for the B consecutive rows of the KV buffer that start at `first_row`."""

    first_row: int
    token_ids: IdArray
    """[B, T], right-padded."""
    num_new: CountArray
    """[B], each 0 … T; a row with 0 keeps its cache as it is and gets meaningless logits."""
    num_cached: CountArray
    """[B], tokens of the row that the cache holds before this step."""
    all_logits: bool = False
    """Whether logits are wanted of every new token, not only of each row's last."""


class Decoder(Protocol):
    """One loaded model with its KV cache."""

    @property
    def slots(self) -> int:
        """Rows of the KV cache."""

    @property
    def capacity(self) -> int:
        """Tokens that a row can hold."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""

    @property
    def movable_rows(self) -> bool:
        """Whether `copy_row` is there: moving a row must be cheaper than running past a gap."""

    def run(self, step: StepInput) -> FloatArray:
        """Run the decoder once.

        Returns:
            float32 [B, 1, vocab_size]: logits of the last new token of each row; with
            `all_logits` [B, T, vocab_size], meaningless where the tokens are padding. The
            memory is the decoder's: valid until the next call.

        Raises:
            EngineFailure: the inputs were refused or memory ran out. What the rows of this
                step hold afterwards is undefined; other rows are as before.
        """

    def copy_row(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` of a row's cache over another row's."""

    @property
    def pool_blocks(self) -> int:
        """Blocks of `BLOCK_TOKENS` tokens that can be kept beside the rows; 0: none."""

    def save_block(self, row: int, start: int, block: int) -> None:
        """Copy the block of a row's cache that begins at token `start` into the pool."""

    def load_blocks(self, blocks: Sequence[int], row: int, start: int) -> None:
        """Copy blocks of the pool into a row, one after the other from token `start` on."""

    def close(self) -> None:
        """Give the memory back; the decoder can't be used any more."""
