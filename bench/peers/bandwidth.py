"""How fast this machine reads memory: the floor under a decode step, which reads every weight once.

A step can't take less than (bytes of weights + bytes of the batch's cache) ÷ this, except for
what stays in the processor's own cache.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

ARRAY_BYTES = 1 << 30
"""Far more than any processor's cache."""
REPEATS = 5


def read_bandwidth(threads: int, array_bytes: int = ARRAY_BYTES) -> float:
    """Bytes a second of `numpy.sum` over one large float32 array, a part for each thread; best."""
    array = np.ones(array_bytes // 4, np.float32)
    parts = np.array_split(array, threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(REPEATS):
            start = time.perf_counter()
            # float32 sums release the interpreter's lock and are limited by reading alone
            list(pool.map(np.sum, parts))
            best = min(best, time.perf_counter() - start)
    return array.nbytes / best


def floor_ms(
    weights_bytes: int, kv_bytes_per_token: int, batch: int, context: int, bytes_per_s: float
) -> float:
    """Milliseconds that reading alone takes in a decode step."""
    return (weights_bytes + kv_bytes_per_token * batch * context) / bytes_per_s * 1e3
