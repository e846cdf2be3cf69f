"""Work on a large matrix in pieces that fit into memory, as many at once as there are cores."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

PIECE_BYTES: Final = 1 << 23
"""Of a matrix at once, for each core; what is made of it on the way takes several times as much."""


def in_pieces(work: Callable[[int, int], None], count: int, size: int) -> None:
    """Call `work` for ranges that together are 0 … count.

    Args:
        work: of a start and an end; is called from several threads.
        count: rows or columns.
        size: bytes of one of them.
    """
    step = max(1, PIECE_BYTES // max(1, size))
    starts = range(0, count, step)
    if len(starts) <= 1:
        work(0, count)
        return
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done in [pool.submit(work, start, min(start + step, count)) for start in starts]:
            done.result()
