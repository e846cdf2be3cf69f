"""What the engine asks of a model: one batch of new tokens in, one row of logits each out.

Knows nothing about requests or sampling. `ort_decoder` is the real one; tests script others.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

IdArray = npt.NDArray[np.int64]
CountArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]


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
            float32 [B, vocab_size]: logits of the last new token of each row. The memory is
            the decoder's: valid until the next call.

        Raises:
            EngineFailure: the inputs were refused or memory ran out. What the rows of this
                step hold afterwards is undefined; other rows are as before.
        """

    def copy_row(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` of a row's cache over another row's."""

    def close(self) -> None:
        """Give the memory back; the decoder can't be used any more."""
