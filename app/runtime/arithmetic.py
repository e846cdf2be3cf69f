"""Whether this processor multiplies integers exactly, as some models need it.

ONNX Runtime multiplies uint8 by int8 with VNNI or AMX where a processor has them. With AVX2 alone
it adds up neighbouring products in 16 bits first, which saturates: large values come out wrong
without an error. So the products are computed here, not looked up in a list of processors.
"""

import functools
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort

from app.errors import ModelBroken

GRAPH: Final = Path(__file__).with_name("u8s8.onnx")
"""`codes` uint8 [rows, 64] times 127 everywhere: `product` float32 [rows, 32]; made by
tests/runtime/test_arithmetic.py."""
WIDTH: Final = 64
ROWS: Final = (1, 2, 8, 64)
"""Kernels differ with the number of rows."""


@functools.cache
def multiplies_exactly() -> bool:
    """Whether products of uint8 and int8 are exact here, computed once."""
    session = ort.InferenceSession(GRAPH, providers=["CPUExecutionProvider"])
    return all(
        np.array_equal(
            session.run(None, {"codes": np.full((rows, WIDTH), 255, np.uint8)})[0],
            np.full((rows, 32), 255 * 127 * WIDTH, np.float32),
        )
        for rows in ROWS
    )


def check_arithmetic(model_id: str, needed: str) -> None:
    """Refuse a model that would be computed wrongly on this processor.

    Args:
        model_id: the model's.
        needed: what its manifest says of arithmetic.

    Raises:
        ModelBroken: with what to do.
    """
    if needed == "u8s8" and not multiplies_exactly():
        raise ModelBroken(
            f"{model_id} needs products of 8-bit integers that this processor rounds wrongly "
            "(it has neither VNNI nor AMX): export the model on this machine, or with "
            "`--arithmetic any`"
        )
