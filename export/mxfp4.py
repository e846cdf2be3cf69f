"""Read experts stored in MXFP4, as gpt-oss' are, into a file, one expert at a time.

A block of 32 values has 4-bit floats, two per byte, and a power of two. Transformers makes numbers
of all experts of a layer at once on its way, several times their size. Knows the format and where
Transformers reads it.

Source: OCP Microscaling Formats (MX) Specification 1.0.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import integrations

from export.pieces import in_pieces
from export.weight_file import WeightFile

MAGNITUDES: Final = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)
VALUES: Final = np.concatenate([MAGNITUDES, -MAGNITUDES])
"""Of the 16 codes, whose highest bit is the sign."""
BLOCK: Final = 32
BIAS: Final = 127
"""Of the exponents."""


def numbers(blocks: npt.NDArray[np.uint8], exponents: npt.NDArray[np.uint8]) -> Any:
    """What some blocks stand for.

    Args:
        blocks: [N, K / 32, 16]; the first of two codes is a byte's low half.
        exponents: [N, K / 32].

    Returns:
        float32 [N, K].
    """
    both = np.stack([VALUES[blocks & 15], VALUES[blocks >> 4]], -1)
    values = both.reshape(*blocks.shape[:-1], -1)
    scaled = np.ldexp(values, exponents.astype(np.int32)[..., None] - BIAS)
    return scaled.reshape(len(blocks), -1)


@contextmanager
def mxfp4_into(file: WeightFile) -> Iterator[None]:
    """Have Transformers put experts that are stored in MXFP4 into a file.

    In float32, whatever else is loaded in.
    """

    def load(module: nn.Module, name: str, value: Tensor, *_: Any, **__: Any) -> None:
        """Keep one of a weight's two tensors, and make the weight once both are there."""
        setattr(module, name.rpartition(".")[2], value)
        weight = name.rpartition(".")[2].removesuffix("_blocks").removesuffix("_scales")
        found = (getattr(module, f"{weight}_{part}", None) for part in ("blocks", "scales"))
        parts = [part.numpy() for part in found if isinstance(part, Tensor)]
        if len(parts) < 2:
            return
        blocks, exponents = parts
        count, rows = blocks.shape[:2]
        stack = file.room((count, blocks.shape[2] * BLOCK, rows), torch.float32)

        def store(start: int, end: int) -> None:
            for expert in range(start, end):
                stack[expert] = torch.from_numpy(numbers(blocks[expert], exponents[expert]).T)

        in_pieces(store, count, 4 * stack[0].numel())
        setattr(module, weight, nn.Parameter(stack, requires_grad=False))
        for part in ("blocks", "scales"):
            delattr(module, f"{weight}_{part}")
        file.release()

    with patch.object(integrations, "dequantize", load):
        yield
