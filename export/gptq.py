"""Round a matrix to int8 such that its products change least, by GPTQ.

Each input dimension is rounded in turn, and what that changes in the products is made up for in
the dimensions that are still to come. Which changes are felt is in the second moments of real
inputs. Knows nothing about graphs.

Source: Frantar et al., GPTQ, arXiv 2210.17323, algorithm 1.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from export.spill import Array

Float32 = npt.NDArray[np.float32]

LEVELS: Final = 127
"""The largest code; the smallest is its negative."""
DAMPING: Final = 0.01
"""Of the mean second moment, added to each dimension's: inputs that were never seen count too."""
BLOCK: Final = 128
"""Dimensions between two updates of all that are still to come."""
PIECE_BYTES: Final = 1 << 26
"""Of the columns that are rounded at once."""


def column_steps(weight: Array) -> Float32:
    """The step of each column's grid, [N]; 1 where a column is zero.

    Args:
        weight: [K, N].
    """
    largest = np.concatenate(
        [np.abs(weight[:, some]).max(axis=0).astype(np.float32) for some in _columns(weight)]
    )
    return np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)


def _columns(weight: Array) -> Iterator[slice]:
    """Ranges of a matrix's columns that fit into memory."""
    step = max(1, PIECE_BYTES // (4 * len(weight)))
    for start in range(0, weight.shape[1], step):
        yield slice(start, start + step)


def round_to_nearest(weight: Float32, steps: Float32) -> npt.NDArray[np.int8]:
    """Round each weight by itself; codes [K, N]."""
    codes: npt.NDArray[np.int8] = np.clip(np.rint(weight / steps), -LEVELS, LEVELS).astype(np.int8)
    return codes


@torch.no_grad()
def round_by_gptq(
    weight: Array,
    steps: Float32,
    moments: Float32,
    damping: float = DAMPING,
    out: npt.NDArray[np.int8] | None = None,
) -> npt.NDArray[np.int8]:
    """Round a matrix, some columns at a time.

    Args:
        weight: [K, N], for products input [S, K] · weight.
        steps: [N], the distance of two codes in each column.
        moments: [K, K], the sum of inputᵀ · input over many inputs, in any scale.
        damping: see `DAMPING`.
        out: where the codes go, if not to an array of their own.

    Returns:
        codes [K, N], within ±`LEVELS`.
    """
    codes = np.empty(weight.shape, np.int8) if out is None else out
    finite = bool(np.isfinite(moments).all())  # else of a damaged model, which the gate judges
    root = _upper_root_of_inverse(moments, damping) if finite else None
    for some in _columns(weight):
        left = np.array(weight[:, some], np.float32)
        if root is None:
            codes[:, some] = round_to_nearest(left, steps[some])
        else:
            codes[:, some] = _round(torch.from_numpy(left), steps[some], root).numpy()
    return codes


def _round(left: torch.Tensor, steps: Float32, root: torch.Tensor) -> torch.Tensor:
    """Round columns [K, N], which are used up; codes int8 [K, N]."""
    grid = torch.from_numpy(np.ascontiguousarray(steps))
    codes = torch.empty(left.shape, dtype=torch.int8)
    for start in range(0, len(left), BLOCK):
        end = min(start + BLOCK, len(left))
        errors = torch.empty(end - start, left.shape[1])
        for k in range(start, end):
            code = torch.clamp(torch.round(left[k] / grid), -LEVELS, LEVELS)
            codes[k] = code.to(torch.int8)
            error = (left[k] - code * grid) / root[k, k]
            left[k + 1 : end] -= torch.outer(root[k, k + 1 : end], error)
            errors[k - start] = error
        left[end:] -= root[start:end, end:].T @ errors
    return codes


def _upper_root_of_inverse(moments: Float32, damping: float) -> torch.Tensor:
    """U float32 [K, K], upper triangular, with Uᵀ U the inverse of the damped moments [K, K].

    One matrix in float64 is held at a time, beside the moments.
    """
    diagonal = torch.from_numpy(moments).diagonal().double()
    diagonal[diagonal == 0] = 1.0  # never seen: any code is as good
    mean = diagonal.mean()
    while True:
        diagonal += damping * mean
        # the transpose of a symmetric matrix is itself, in the order that LAPACK works in
        wide = torch.from_numpy(moments).double().T
        wide.diagonal().copy_(diagonal)
        failed = _factor(wide, upper=False)
        if not failed:
            torch.cholesky_inverse(wide, out=wide)
            failed = _factor(wide, upper=True)
        if not failed:
            return wide.float()
        damping *= 10  # inputs that are nearly alike, or of sizes too far apart


def _factor(matrix: torch.Tensor, *, upper: bool) -> bool:
    """Put a matrix's Cholesky factor in its place; returns whether it has none."""
    failed = torch.empty((), dtype=torch.int32)
    torch.linalg.cholesky_ex(matrix, upper=upper, out=(matrix, failed))
    return bool(failed)
