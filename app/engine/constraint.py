"""Ask a sequence's constraint what may come next, and tell it what came.

Knows bits and logits, not what a constraint is made from. What a constraint raises is turned
into the failure of its own sequence here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from app.engine.failures import unforeseen
from app.engine.sequence import Constraint
from app.errors import EngineFailure, Error
from app.runtime.decoder import CountArray, FloatArray


def restrict(row: FloatArray, constraint: Constraint, mask: CountArray) -> None:
    """Leave the logits of allowed tokens as they are and set the others to -inf.

    Args:
        row: float32 [V], changed in place.
        constraint: fills the mask.
        mask: int32 [ceil(V / 32)], a buffer; what it holds before is ignored.

    Raises:
        Error: the constraint failed or allows nothing.
    """
    with _failing_alone():
        constraint.fill_mask(mask)
    # little-endian, as every machine that ONNX Runtime is built for
    allowed = np.unpackbits(mask.view(np.uint8), count=row.size, bitorder="little").view(np.bool_)
    if not allowed.any():
        raise EngineFailure("the constraint allows no token")
    np.copyto(row, -np.inf, where=~allowed)


def accept(constraint: Constraint, token_id: int) -> bool:
    """Give the sampled token to the constraint.

    Returns:
        Whether nothing but the end can follow.

    Raises:
        Error: the constraint failed or refuses the token.
    """
    with _failing_alone():
        constraint.accept(token_id)
        return constraint.ended


@contextmanager
def _failing_alone() -> Iterator[None]:
    try:
        yield
    except Error:
        raise
    except BaseException as error:  # a panic in an extension written in Rust is no Exception
        raise unforeseen("the constraint", error) from error
