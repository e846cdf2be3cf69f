"""The KV cache's memory, on the host or on a GPU: slots, and a pool of blocks beside them.

Per layer and for keys and values alike it is one array `[slots, kv_heads, capacity, head_dim]`.
Knows where things lie; what they are is the decoder's.
"""

import math
import mmap
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from app.manifest import Graph
from app.runtime.decoder import BLOCK_TOKENS


class KvMemory(Protocol):
    """The cache's memory on one device."""

    def pointer(self, layer: int, part: int, slot: int) -> int:
        """Device address of a slot's keys (part 0) or values (part 1) in a layer."""

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Copy at least the first `num_tokens` of one slot over another."""

    def save_block(self, slot: int, start: int, block: int) -> None:
        """Copy the block of a slot that begins at token `start` into the pool."""

    def load_blocks(self, blocks: Sequence[int], slot: int, start: int) -> None:
        """Copy blocks of the pool into a slot, one after the other from token `start` on."""


class CpuKvMemory:
    """Host memory. Pages that no sequence reached yet are never touched and cost no RAM.

    Copies go through memoryviews, which keep the interpreter's lock: NumPy gives it up for each of
    the 60 arrays, and beside a busy event loop it took 80 ms to get it back so often
    (bench/LOG.md, 2026-11-27).
    """

    def __init__(self, graph: Graph, slots: int, capacity: int, pool_blocks: int) -> None:
        self._buffers = _layers(graph, slots, capacity)
        self._pool = _layers(graph, pool_blocks, BLOCK_TOKENS) if pool_blocks else []
        token_bytes = graph.head_dim * np.dtype(graph.kv_dtype).itemsize
        self._heads = graph.num_kv_heads
        self._token_bytes = token_bytes
        self._head_bytes = capacity * token_bytes
        self._block_bytes = BLOCK_TOKENS * token_bytes
        """Of one head."""
        self._flat = [
            (_bytes_of(buffer), _bytes_of(pool))
            for buffers, pools in zip(self._buffers, self._pool, strict=False)
            for buffer, pool in zip(buffers, pools, strict=True)
        ]

    def pointer(self, layer: int, part: int, slot: int) -> int:
        """Address of a slot's keys (part 0) or values (part 1) in a layer."""
        return int(self._buffers[layer][part][slot].ctypes.data)

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` of every head."""
        for parts in self._buffers:
            for buffer in parts:
                buffer[target, :, :num_tokens] = buffer[source, :, :num_tokens]

    def save_block(self, slot: int, start: int, block: int) -> None:
        """Copy the block of a slot that begins at token `start` into the pool."""
        size = self._block_bytes
        places = list(self._places(block, slot, start))
        for buffer, pool in self._flat:
            for kept, held in places:
                pool[kept : kept + size] = buffer[held : held + size]

    def load_blocks(self, blocks: Sequence[int], slot: int, start: int) -> None:
        """Copy blocks of the pool into a slot, one after the other from token `start` on."""
        size = self._block_bytes
        for index, block in enumerate(blocks):
            places = list(self._places(block, slot, start + index * BLOCK_TOKENS))
            for buffer, pool in self._flat:
                for kept, held in places:
                    buffer[held : held + size] = pool[kept : kept + size]

    def _places(self, block: int, slot: int, start: int) -> Iterator[tuple[int, int]]:
        """Byte offsets of a block's heads in the pool, and of the same tokens in a slot."""
        for head in range(self._heads):
            kept = (block * self._heads + head) * self._block_bytes
            held = (slot * self._heads + head) * self._head_bytes + start * self._token_bytes
            yield kept, held


class CudaKvMemory:
    """Device memory, allocated by ONNX Runtime; without a pool. Untested: no GPU has run it yet."""

    def __init__(self, graph: Graph, slots: int, capacity: int) -> None:
        shape = [slots, graph.num_kv_heads, capacity, graph.head_dim]
        dtype = np.dtype(graph.kv_dtype)
        self._slot_bytes = math.prod(shape[1:]) * dtype.itemsize
        self._values = [
            [ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cuda", 0) for _ in range(2)]
            for _ in range(graph.num_layers)
        ]

    def pointer(self, layer: int, part: int, slot: int) -> int:
        """Address of a slot's keys (part 0) or values (part 1) in a layer."""
        start: int = self._values[layer][part].data_ptr()
        return start + slot * self._slot_bytes

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Refuse: the engine never moves sequences on a GPU, where a gap costs next to nothing."""
        raise NotImplementedError(f"copy of slot {source} to {target} ({num_tokens} tokens)")

    def save_block(self, slot: int, start: int, block: int) -> None:
        """Refuse: there is no pool on a GPU."""
        raise NotImplementedError(f"block {block} of slot {slot}, token {start}")

    def load_blocks(self, blocks: Sequence[int], slot: int, start: int) -> None:
        """Refuse: there is no pool on a GPU."""
        raise NotImplementedError(f"blocks {blocks} to slot {slot}, token {start}")


def sparse_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Make an array of zeros whose pages come into being one by one, when first written.

    With huge pages the first token of a slot would bring whole heads into being: 377 MB and
    0.8 s per slot of the default model (bench/LOG.md, 2026-11-22).
    """
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype).reshape(shape)


def _bytes_of(array: npt.NDArray[Any]) -> memoryview:
    return array.view(np.uint8).reshape(-1).data


def _layers(
    graph: Graph, count: int, tokens: int
) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Keys and values of each layer for `count` slots or blocks: [count, kv_heads, tokens, dim]."""
    shape = (count, graph.num_kv_heads, tokens, graph.head_dim)
    dtype = np.dtype(graph.kv_dtype)
    return [
        (sparse_zeros(shape, dtype), sparse_zeros(shape, dtype)) for _ in range(graph.num_layers)
    ]
