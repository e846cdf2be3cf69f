"""Which modules of the torch model a constant matrix of the graph was made of.

Matrices are transposed, packed and scaled on the way into a graph. Whatever makes one of others
carries this on, so that what an adapter adds to a module finds its place in the finished graph.
Knows names and columns, no numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

WEIGHT: Final = ".weight"


@dataclass(frozen=True)
class Part:
    """Columns that are one module's."""

    module: str
    columns: int


@dataclass(frozen=True)
class Origin:
    """What a matrix was made of."""

    parts: tuple[Part, ...]
    """From the first column to the last."""
    scaled: int = 0
    """How many of the first columns are `factor` times the modules' own."""
    factor: float = 1.0

    @classmethod
    def of(cls, parameter: str, columns: int) -> Self:
        """The origin of a module's own weight."""
        return cls((Part(parameter.removesuffix(WEIGHT), columns),))

    def turned(self, columns: int) -> "Origin":
        """The origin of the transposed weight of one module."""
        assert len(self.parts) == 1, self.parts
        assert not self.scaled, "a weight is transposed before anything else"
        return Origin((Part(self.parts[0].module, columns),))

    def times(self, columns: int, factor: float) -> "Origin":
        """The origin of the matrix with its first columns multiplied."""
        assert not self.scaled, "queries are scaled once"
        return Origin(self.parts, columns, factor)

    @classmethod
    def joined(cls, origins: Sequence["Origin | None"]) -> "Origin | None":
        """The origin of matrices side by side; None if that of one isn't known."""
        known = [origin for origin in origins if origin is not None and not origin.scaled]
        if len(known) < len(origins):
            return None
        return cls(tuple(part for origin in known for part in origin.parts))
