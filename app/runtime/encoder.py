"""What batches of whole texts ask of a model: token ids in, one vector for each text out.

Knows nothing about requests or text. `ort_encoder` is the real one; tests script others.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Vector: TypeAlias = "array[float]"
"""float32; one text's."""


@dataclass(frozen=True, slots=True)
class Row:
    """One text, or a query and a document together, special tokens included."""

    ids: Sequence[int]
    first: int = 0
    """How many of them belong to the first text of a pair; 0: there is one text."""

    def __len__(self) -> int:
        return len(self.ids)


class Encoder(Protocol):
    """One loaded model."""

    @property
    def capacity(self) -> int:
        """Tokens that a row may have."""

    @property
    def width(self) -> int:
        """Numbers of a vector."""

    @property
    def vocab_size(self) -> int:
        """Rows may have ids below this."""

    def run(self, rows: Sequence[Row]) -> list[Vector]:
        """Make the vectors of some rows in one run; the shorter ones are padded.

        Raises:
            EngineFailure: the inputs were refused or memory ran out.
        """

    def close(self) -> None:
        """Give the memory back; the encoder can't be used any more."""
