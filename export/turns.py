"""Orthogonal matrices that turn a space without changing what is computed in it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Turning:
    """What became of a product's matrix [K, N] when the spaces around it were turned."""

    change: Callable[[Float64], Float64]
    columns: bool
    """Whether it makes each column out of that column, and not each row out of that row."""


def orthogonal(size: int, seed: int) -> Float64:
    """A random orthogonal matrix [size, size], uniform among all."""
    normal = np.random.default_rng(seed).standard_normal((size, size))
    q, r = np.linalg.qr(normal)
    return q * np.sign(np.diag(r))


def hadamard(size: int) -> Float64:
    """Sylvester's Hadamard matrix over the root of its size: orthogonal and symmetric.

    Args:
        size: a power of two.
    """
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    scaled: Float64 = matrix / np.sqrt(size)
    return scaled


def per_head(turn: Float64, heads: int) -> Float64:
    """The block diagonal matrix that turns each head alike."""
    blocks: Float64 = np.kron(np.eye(heads), turn).astype(np.float64)
    return blocks
