"""Find the grid of 16 levels that the values of a block lie on already.

Weights that come from 4-bit codes are multiples of a step, but a block of theirs rarely reaches
from the lowest code to the highest, so a grid laid from its smallest value to its largest would be
another one, and rounding to it a second loss. Knows numbers, not where they come from.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MOST: Final = 15
"""Steps between 16 levels."""
TOLERANCE: Final = 1e-3
"""Of a step. Thirty values that belong to no grid are this close to one once in 10^80 blocks."""
TRIED: Final = 64
"""Blocks of which one lies on a grid, or none of the matrix is thought to."""


def steps_between(values: Array, low: Array, high: Array) -> Array:
    """How many steps there are from each block's smallest value to its largest.

    The fewest, 1 … 15, with which all of its values are whole steps away from its smallest, and so
    is zero, if there are such; else the fewest without zero; else 15.

    Args:
        values: float32 [N, B, S].
        low: [N, B], the smallest of each block.
        high: [N, B], the largest.
    """
    some = np.flatnonzero(high > low)[:TRIED]
    flat = values.reshape(-1, values.shape[-1])[some]
    if not (_fewest(flat, low.reshape(-1)[some], high.reshape(-1)[some]) > 0).any():
        return np.full(low.shape, np.float32(MOST))
    found = _fewest(values, low, high)
    return np.where(found > 0, found, np.float32(MOST))


def _fewest(values: Array, low: Array, high: Array) -> Array:
    """See `steps_between`; 0 where no number of steps fits."""
    span = np.where(high > low, high - low, np.float32(1))
    places, zero = (values - low[..., None]) / span[..., None], -low / span
    with_zero, without = np.zeros_like(low), np.zeros_like(low)
    for steps in range(MOST, 0, -1):
        fits = (_off(places * np.float32(steps)) < TOLERANCE).all(-1)
        without[fits] = steps
        with_zero[fits & (_off(zero * np.float32(steps)) < TOLERANCE)] = steps
    return np.where(with_zero > 0, with_zero, without)


def _off(places: Array) -> Array:
    distances: Array = np.abs(places - np.rint(places))
    return distances
