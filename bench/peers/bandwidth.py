"""Measure how fast this machine reads memory, which bounds a decode step from below.

A step reads every weight once, so it can't take less than (bytes of weights + bytes of the batch's
KV cache) ÷ bandwidth, except for what stays in the processor's own cache.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

ARRAY_BYTES = 1 << 30
"""Much larger than any processor's cache."""
REPEATS = 5


def read_bandwidth(threads: int, array_bytes: int = ARRAY_BYTES) -> float:
    """Bytes per second of `numpy.sum` over parts of an array, one per thread; the best run."""
    array = np.ones(array_bytes // 4, np.float32)
    parts = np.array_split(array, threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(REPEATS):
            start = time.perf_counter()
            # a float32 sum releases the GIL and is limited by memory reads alone
            list(pool.map(np.sum, parts))
            best = min(best, time.perf_counter() - start)
    return array.nbytes / best


def floor_ms(
    weights_bytes: int, kv_bytes_per_token: int, batch: int, context: int, bytes_per_s: float
) -> float:
    """Milliseconds that a decode step spends at least on reading memory."""
    return (weights_bytes + kv_bytes_per_token * batch * context) / bytes_per_s * 1e3
