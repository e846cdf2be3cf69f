"""Find tables of learned positions, and look positions up in them that the model isn't told.

Models that count tokens by themselves start at 0 in each run. So lookups of consecutive numbers,
the same ones in each row, are recorded, and the server's positions take their place when the model
is traced: by the order of all lookups, of tokens too.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

LOOKUP = "embedding"


@dataclass(frozen=True)
class Lookup:
    """A lookup of positions."""

    first: int
    """The row of the first position."""
    rows: int

    @property
    def context(self) -> int:
        """Positions that have a row."""
        return self.rows - self.first


class RecordLookups(TorchFunctionMode):
    """Records all lookups of one run: positions, or None for anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Lookup | None] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation; a lookup is recorded."""
        if getattr(func, "__name__", "") == LOOKUP:
            index, table = args[:2]
            first = int(index.flatten()[0])
            counted = torch.arange(first, first + index.shape[-1])
            positions = index.shape[-1] > 1 and bool((index == counted).all())
            self.found.append(Lookup(first, table.shape[0]) if positions else None)
        return func(*args, **(kwargs or {}))


class ReplaceLookups(TorchFunctionMode):
    """Replaces what is looked up where `RecordLookups` found positions."""

    def __init__(self, lookups: tuple[Lookup | None, ...]) -> None:
        super().__init__()
        self.lookups = lookups
        self.positions: Tensor | None = None
        """int64 [B, S]."""
        self.count = 0

    def begin(self, positions: Tensor) -> None:
        """Begin a run at the given positions."""
        self.positions, self.count = positions, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation; a lookup of positions takes ours."""
        if getattr(func, "__name__", "") == LOOKUP and self.count < len(self.lookups):
            lookup = self.lookups[self.count]
            self.count += 1
            if lookup is not None and self.positions is not None:
                args = (self.positions + lookup.first, *args[1:])
        return func(*args, **(kwargs or {}))
