"""A `Decoder` on ONNX Runtime: one session, one resident KV cache, inputs bound by pointer.

The cache is `[slots, kv_heads, capacity, head_dim]` per layer for keys and for values. A step
binds the memory of its rows as past and as present alike, so GroupQueryAttention writes the
new tokens in place and nothing is ever concatenated. CPU and CUDA differ in who allocates.

Knows nothing about requests, scheduling or sampling.
"""

import ctypes
import gc
import math
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from app.errors import EngineFailure, ModelBroken, ProviderUnavailable
from app.manifest import Graph, Manifest
from app.runtime.decoder import BLOCK_TOKENS, CountArray, FloatArray, IdArray, StepInput

Provider = Literal["cpu", "cuda"]

PROVIDERS: Final[dict[Provider, str]] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}


def choose_provider(wanted: Literal["auto", "cpu", "cuda"]) -> Provider:
    """Resolve the setting against the ONNX Runtime that is installed.

    Raises:
        ProviderUnavailable: the one asked for by name is not there.
    """
    installed = ort.get_available_providers()
    if wanted == "auto":
        return "cuda" if PROVIDERS["cuda"] in installed else "cpu"
    if PROVIDERS[wanted] not in installed:
        raise ProviderUnavailable(
            f"execution provider {wanted!r} is not in the installed onnxruntime "
            f"{ort.__version__}, which has {', '.join(installed)}"
        )
    return wanted


class KvMemory(Protocol):
    """The cache's memory on one device."""

    def pointer(self, layer: int, part: int, row: int) -> int:
        """Device address of a row's keys (part 0) or values (part 1) in a layer."""

    def save_block(self, row: int, start: int, block: int) -> None:
        """Copy a block of a row into the pool."""

    def load_blocks(self, blocks: Sequence[int], row: int, start: int) -> None:
        """Copy blocks of the pool into a row."""

    def copy_row(self, source: int, target: int, num_tokens: int) -> None:
        """Copy at least the first `num_tokens` of one row over another."""


class CpuKvMemory:
    """Host memory. Pages that no sequence reached yet are never touched and cost no RAM."""

    def __init__(self, graph: Graph, slots: int, capacity: int, pool_blocks: int) -> None:
        self._buffers = _layers(graph, slots, capacity)
        self._pool = _layers(graph, pool_blocks, BLOCK_TOKENS) if pool_blocks else []

    def pointer(self, layer: int, part: int, row: int) -> int:
        """Address of a row."""
        return int(self._buffers[layer][part][row].ctypes.data)

    def copy_row(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` of every head."""
        for parts in self._buffers:
            for buffer in parts:
                buffer[target, :, :num_tokens] = buffer[source, :, :num_tokens]

    def save_block(self, row: int, start: int, block: int) -> None:
        """Copy a block of a row into the pool."""
        end = start + BLOCK_TOKENS
        for buffers, pools in zip(self._buffers, self._pool, strict=True):
            for buffer, pool in zip(buffers, pools, strict=True):
                pool[block] = buffer[row, :, start:end]

    def load_blocks(self, blocks: Sequence[int], row: int, start: int) -> None:
        """Copy blocks of the pool into a row."""
        ends = range(start + BLOCK_TOKENS, start + BLOCK_TOKENS * (len(blocks) + 1), BLOCK_TOKENS)
        for buffers, pools in zip(self._buffers, self._pool, strict=True):
            for buffer, pool in zip(buffers, pools, strict=True):
                target = buffer[row]
                for block, end in zip(blocks, ends, strict=True):
                    target[:, end - BLOCK_TOKENS : end] = pool[block]


def _layers(
    graph: Graph, rows: int, tokens: int
) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Keys and values of each layer, [rows, kv_heads, tokens, head_dim]."""
    shape = (rows, graph.num_kv_heads, tokens, graph.head_dim)
    dtype = np.dtype(graph.kv_dtype)
    return [
        (_sparse_zeros(shape, dtype), _sparse_zeros(shape, dtype)) for _ in range(graph.num_layers)
    ]


def _sparse_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Zeros in pages that come into being one by one, when they are first written.

    With huge pages the first token of a row would bring whole heads into being: 377 MB and
    0.8 s a row of the default model (bench/LOG.md, 2026-11-22).
    """
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype).reshape(shape)


class CudaKvMemory:
    """Device memory, allocated by ONNX Runtime. Untested: no GPU has run it yet."""

    def __init__(self, graph: Graph, slots: int, capacity: int) -> None:
        shape = [slots, graph.num_kv_heads, capacity, graph.head_dim]
        dtype = np.dtype(graph.kv_dtype)
        self._row_shape = [1, *shape[1:]]
        self._row_bytes = int(np.prod(self._row_shape)) * dtype.itemsize
        self._dtype = dtype
        self._values = [
            [ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cuda", 0) for _ in range(2)]
            for _ in range(graph.num_layers)
        ]

    def pointer(self, layer: int, part: int, row: int) -> int:
        """Address of a row."""
        start: int = self._values[layer][part].data_ptr()
        return start + row * self._row_bytes

    def copy_row(self, source: int, target: int, num_tokens: int) -> None:
        """Refuse: the engine never moves rows on a GPU, whose idle rows cost next to nothing."""
        raise NotImplementedError(f"copy of row {source} to {target} ({num_tokens} tokens)")

    def save_block(self, row: int, start: int, block: int) -> None:
        """Refuse: there is no pool on a GPU."""
        raise NotImplementedError(f"block {block} of row {row}, token {start}")

    def load_blocks(self, blocks: Sequence[int], row: int, start: int) -> None:
        """Refuse: there is no pool on a GPU."""
        raise NotImplementedError(f"blocks {blocks} to row {row}, token {start}")


class OrtDecoder:
    """One exported model, ready to run."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        *,
        slots: int,
        capacity: int,
        provider: Provider = "cpu",
        intra_op_threads: int = 0,
        pool_blocks: int = 0,
    ) -> None:
        """Load the graph and reserve the cache.

        Args:
            folder: holds the files that the manifest names.
            manifest: what `read_manifest(folder)` returned.
            slots: rows of the cache.
            capacity: tokens a row holds; at most the model's context length.
            provider: from `choose_provider`.
            intra_op_threads: 0: one a physical core.
            pool_blocks: blocks of prompts to keep beside the rows; none on a GPU.

        Raises:
            ModelBroken: ONNX Runtime can't load the graph, or its inputs are not those of
                `app.manifest`.
        """
        graph = manifest.graph
        self.slots, self.capacity, self.vocab_size = slots, capacity, graph.vocab_size
        self.movable_rows = provider == "cpu"
        self._graph = graph
        self._provider = provider
        self._session = _load(folder / graph.file, provider, intra_op_threads)
        self._check_inputs()
        self.pool_blocks = pool_blocks if provider == "cpu" else 0
        self._kv: KvMemory = (
            CpuKvMemory(graph, slots, capacity, pool_blocks)
            if provider == "cpu"
            else CudaKvMemory(graph, slots, capacity)
        )
        self._kv_dtype = np.dtype(graph.kv_dtype)
        self._logits = np.empty((slots, 1, graph.vocab_size), np.float32)
        self._bindings: dict[tuple[int, int], ort.IOBinding] = {}

    def run(self, step: StepInput) -> FloatArray:
        """Run the decoder once; see `Decoder.run`."""
        batch, width = step.token_ids.shape
        assert step.first_row + batch <= self.slots, (step.first_row, batch, self.slots)
        seqlens = step.num_cached + step.num_new
        total = int(seqlens.max())
        assert total <= self.capacity, (total, self.capacity)
        if step.all_logits:
            # In pages of their own: they go back to the system with the last reference.
            logits = _sparse_zeros((batch, width, self.vocab_size), np.dtype(np.float32))
            logits_index = np.tile(np.arange(width), (batch, 1))
            binding = self._bind(step.first_row, logits)
        else:
            logits = self._logits[:batch]
            logits_index = np.maximum(step.num_new - 1, 0).astype(np.int64)[:, None]
            binding = self._binding(step.first_row, batch)
        inputs: tuple[tuple[str, IdArray | CountArray], ...] = (
            ("input_ids", np.ascontiguousarray(step.token_ids)),
            ("query_seqlens", step.num_new),
            # length - 1 (index of the last key), not the length; an empty idle row says 0
            ("seqlens_k", np.maximum(seqlens - 1, 0)),
            ("total_sequence_length", np.array([total], np.int32)),
            ("logits_index", logits_index),
        )
        for name, array in inputs:
            # Host memory for every provider: ONNX Runtime copies what a kernel wants elsewhere.
            binding.bind_cpu_input(name, array)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's exception classes share no public base
            raise EngineFailure(f"decoder step of {batch} x {width} tokens: {error}") from error
        return logits

    def copy_row(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` of a row's cache over another row's."""
        self._kv.copy_row(source, target, num_tokens)

    def save_block(self, row: int, start: int, block: int) -> None:
        """Copy the block of a row's cache that begins at token `start` into the pool."""
        self._kv.save_block(row, start, block)

    def load_blocks(self, blocks: Sequence[int], row: int, start: int) -> None:
        """Copy blocks of the pool into a row, one after the other from token `start` on."""
        self._kv.load_blocks(blocks, row, start)

    def close(self) -> None:
        """Drop session and cache."""
        self._bindings.clear()
        del self._session, self._kv

    def _binding(self, first_row: int, batch: int) -> ort.IOBinding:
        """The cache's rows and their last logits, bound once for each (first_row, batch)."""
        key = (first_row, batch)
        if key not in self._bindings:
            self._bindings[key] = self._bind(first_row, self._logits[:batch])
        return self._bindings[key]

    def _bind(self, first_row: int, logits: FloatArray) -> ort.IOBinding:
        """Bind the cache of the rows that `logits` [B, L, V] has, and its memory."""
        graph = self._graph
        binding = self._session.io_binding()
        shape = [len(logits), graph.num_kv_heads, self.capacity, graph.head_dim]
        for layer in range(graph.num_layers):
            for part, name in enumerate(("key", "value")):
                where = (
                    self._provider,
                    0,
                    self._kv_dtype,
                    shape,
                    self._kv.pointer(layer, part, first_row),
                )
                binding.bind_input(f"past_key_values.{layer}.{name}", *where)
                binding.bind_output(f"present.{layer}.{name}", *where)
        binding.bind_output("logits", "cpu", 0, np.float32, list(logits.shape), logits.ctypes.data)
        return binding

    def _check_inputs(self) -> None:
        past = {
            f"past_key_values.{layer}.{part}"
            for layer in range(self._graph.num_layers)
            for part in ("key", "value")
        }
        wanted = past | {
            "input_ids",
            "query_seqlens",
            "seqlens_k",
            "total_sequence_length",
            "logits_index",
        }
        found = {node.name for node in self._session.get_inputs()}
        if found != wanted:
            raise ModelBroken(
                f"{self._graph.file}: missing inputs {sorted(wanted - found)}, "
                f"unknown inputs {sorted(found - wanted)}"
            )


def trim_heap() -> None:
    """Give freed memory back to the system.

    glibc keeps it: of 348 MB with the default model 292 stayed after it was dropped, 76 with this
    (bench/LOG.md, 2026-11-22). Other C libraries have no such call.
    """
    gc.collect()  # an engine and its thread refer to each other
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def session_options(intra_op_threads: int = 0) -> ort.SessionOptions:
    """How sessions run here, also those that judge an export.

    GroupQueryAttention on a CPU takes its plain kernel: its flash kernel packs the cached keys and
    values anew for every head of a small chunk, so that 4 new tokens on 4,000 cached ones cost 47
    ms with it and 36 without. Whoever has set the variable has chosen.

    Threads spin while a step runs, for they meet at each of its hundreds of nodes, and stop with
    it: the event loop needs the cores between two steps. A step of one row takes 0.85 of its time
    without (both in bench/LOG.md).
    """
    os.environ.setdefault("ORT_GQA_DISABLE_FLASH_ATTENTION", "1")
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # The arena keeps the largest block of every shape it ever saw; steps vary in shape.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return options


def _load(path: Path, provider: Provider, intra_op_threads: int) -> ort.InferenceSession:
    options = session_options(intra_op_threads)
    try:
        return ort.InferenceSession(path, options, providers=[PROVIDERS[provider]])
    except Exception as error:  # onnxruntime's exception classes share no public base
        raise ModelBroken(f"{path}: {error}") from error
