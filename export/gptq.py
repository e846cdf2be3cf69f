"""Round a matrix to int8 such that its products change least, by GPTQ.

Each input dimension is rounded in turn, and what that changes in the products is made up for in
the dimensions that are still to come. Which changes are felt is in the second moments of real
inputs. Knows nothing about graphs.

Source: Frantar et al., GPTQ, arXiv 2210.17323, algorithm 1.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

Float32 = npt.NDArray[np.float32]

LEVELS: Final = 127
"""The largest code; the smallest is its negative."""
DAMPING: Final = 0.01
"""Of the mean second moment, added to each dimension's: inputs that were never seen count too."""
BLOCK: Final = 128
"""Dimensions between two updates of all that are still to come."""


def column_steps(weight: Float32) -> Float32:
    """The step of each column's grid, [N]; 1 where a column is zero.

    Args:
        weight: [K, N].
    """
    largest = np.abs(weight).max(axis=0)
    return np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)


def round_to_nearest(weight: Float32, steps: Float32) -> npt.NDArray[np.int8]:
    """Round each weight by itself; codes [K, N]."""
    codes: npt.NDArray[np.int8] = np.clip(np.rint(weight / steps), -LEVELS, LEVELS).astype(np.int8)
    return codes


@torch.no_grad()
def round_by_gptq(
    weight: Float32, steps: Float32, moments: Float32, damping: float = DAMPING
) -> npt.NDArray[np.int8]:
    """Round a matrix.

    Args:
        weight: [K, N], for products input [S, K] · weight.
        steps: [N], the distance of two codes in each column.
        moments: [K, K], the sum of inputᵀ · input over many inputs, in any scale.
        damping: see `DAMPING`.

    Returns:
        codes [K, N], within ±`LEVELS`.
    """
    if not np.isfinite(moments).all():  # of a damaged model; the quality gate judges the rest
        return round_to_nearest(weight, steps)
    left = torch.from_numpy(weight.copy())
    grid = torch.from_numpy(steps)
    codes = torch.empty(weight.shape, dtype=torch.int8)
    inverse = _upper_root_of_inverse(torch.from_numpy(moments).double(), damping).float()
    for start in range(0, len(left), BLOCK):
        end = min(start + BLOCK, len(left))
        errors = torch.empty(end - start, left.shape[1])
        for k in range(start, end):
            code = torch.clamp(torch.round(left[k] / grid), -LEVELS, LEVELS)
            codes[k] = code.to(torch.int8)
            error = (left[k] - code * grid) / inverse[k, k]
            left[k + 1 : end] -= torch.outer(inverse[k, k + 1 : end], error)
            errors[k - start] = error
        left[end:] -= inverse[start:end, end:].T @ errors
    return codes.numpy()


def _upper_root_of_inverse(moments: torch.Tensor, damping: float) -> torch.Tensor:
    """U, upper triangular, with Uᵀ U the inverse of the damped moments [K, K]."""
    diagonal = moments.diagonal()
    diagonal[diagonal == 0] = 1.0  # never seen: any code is as good
    mean = diagonal.mean()
    while True:
        diagonal += damping * mean
        lower, failed = torch.linalg.cholesky_ex(moments)
        if not failed:
            root, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed:
            assert isinstance(root, torch.Tensor)
            return root
        damping *= 10  # inputs that are nearly alike, or of sizes too far apart
