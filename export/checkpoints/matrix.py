"""Make a matrix of numbers from codes and scales, in pieces on all cores.

A number is (code - zero point) × scale in float32, where the products of codes of 8 bits and scales
of 16 are exact. Knows arrays, not formats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from export.pieces import in_pieces

Array = npt.NDArray[Any]
Codes = Callable[[int, int], Array]
"""Codes [end - start, K] of the rows from start to end."""


@dataclass(frozen=True)
class Grid:
    """Which of the scales [R, C] each number of a matrix [N, K] has."""

    rows: Array
    """[N]: of each row, the scales' row."""
    columns: Array
    """[K]: of each column, the scales' column."""

    @classmethod
    def of_blocks(cls, shape: tuple[int, int], block: tuple[int, int]) -> Self:
        """Blocks of some rows and columns that share a scale; the last ones may be smaller."""
        return cls(np.arange(shape[0]) // block[0], np.arange(shape[1]) // block[1])

    def of(self, scales: Array, start: int, end: int) -> Array:
        """The scales of the numbers in some rows, [end - start, K]."""
        return scales[self.rows[start:end]][:, self.columns]


def dequantise(
    codes: Codes, grid: Grid, scales: Array, zero_points: Array | None = None
) -> torch.Tensor:
    """The matrix [N, K] in float32.

    Args:
        codes: integers, or floats of 8 bits.
        grid: which scale, and zero point, a number has.
        scales: float32 [R, C].
        zero_points: integers [R, C]; None: they are 0.
    """
    rows, columns = len(grid.rows), len(grid.columns)
    whole = torch.empty((rows, columns), dtype=torch.float32)
    numbers = whole.numpy()

    def store(start: int, end: int) -> None:
        numbers[start:end] = codes(start, end)
        if zero_points is not None:
            numbers[start:end] -= grid.of(zero_points, start, end)
        with np.errstate(all="ignore"):  # who loads the weight looks for what is not finite
            numbers[start:end] *= grid.of(scales, start, end)

    in_pieces(store, rows, 4 * columns)
    return whole


def bytes_of(tensor: torch.Tensor) -> Codes:
    """Codes of 8 bits that are stored one by one, integers or floats."""
    if not tensor.dtype.is_floating_point:
        integers = tensor.numpy()
        return lambda start, end: integers[start:end]
    # NumPy has no such floats, and torch would convert them with threads of its own in each of ours
    values = torch.arange(256, dtype=torch.uint8).view(tensor.dtype).float().numpy()
    places = tensor.view(torch.uint8).numpy()
    return lambda start, end: values[places[start:end]]


def unpack(words: Array, bits: int, count: int) -> npt.NDArray[np.uint8]:
    """The first `count` codes in each row of 32-bit words.

    The bits of a row follow each other from the lowest of its first word on, so that a code of 3
    bits may begin in one word and end in the next.

    Args:
        words: int32 [..., W].
        bits: of a code; 2, 3, 4 or 8.
        count: at most 32 × W / bits.
    """
    stored = np.ascontiguousarray(words, "<i4").view(np.uint8)
    if bits == 8:
        return stored[..., :count]
    short = -stored.shape[-1] % bits
    stored = np.pad(stored, [(0, 0)] * (stored.ndim - 1) + [(0, short)])
    # as many bytes as a code has bits hold eight codes
    octets = stored.reshape(*stored.shape[:-1], -1, bits)
    together = np.zeros(octets.shape[:-1], np.uint32)
    for byte in range(bits):
        together |= octets[..., byte].astype(np.uint32) << np.uint32(8 * byte)
    codes = np.empty((*together.shape, 8), np.uint8)
    for place in range(8):
        codes[..., place] = together >> np.uint32(bits * place) & np.uint32(2**bits - 1)
    return codes.reshape(*codes.shape[:-2], -1)[..., :count]
