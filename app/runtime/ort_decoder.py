"""A `Decoder` on ONNX Runtime: one session, one resident KV cache, inputs bound by pointer.

A step binds the memory of its slots as past and as present alike, so GroupQueryAttention writes
the new tokens in place and nothing is ever concatenated. CPU and CUDA differ in who allocates
(`kv_memory`). Knows nothing about requests, scheduling or sampling.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnxruntime as ort

from app.errors import EngineFailure, ModelBroken, ProviderUnavailable
from app.manifest import Manifest
from app.runtime.decoder import CountArray, FloatArray, IdArray, StepInput
from app.runtime.kv_memory import CpuKvMemory, CudaKvMemory, KvMemory, sparse_zeros

Provider = Literal["cpu", "cuda"]

PROVIDERS: Final[dict[Provider, str]] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
ADAPTER_IDS: Final = "adapter_ids"


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
        prepack: bool = True,
    ) -> None:
        """Load the graph and reserve the cache.

        Args:
            folder: holds the files that the manifest names.
            manifest: what `read_manifest(folder)` returned.
            slots: sequences that the cache holds at once.
            capacity: tokens that a slot holds; at most the model's context length.
            provider: from `choose_provider`.
            intra_op_threads: 0: one per physical core.
            pool_blocks: blocks of prompts to keep beside the slots; none on a GPU.
            prepack: see `session_options`.

        Raises:
            ModelBroken: ONNX Runtime can't load the graph, or its inputs are not those of
                `app.manifest`.
        """
        graph = manifest.graph
        self.slots, self.capacity, self.vocab_size = slots, capacity, graph.vocab_size
        self.min_first_chunk = manifest.quantisation.min_first_chunk
        self.can_copy_slots = provider == "cpu"
        self._graph = graph
        self._provider = provider
        options = session_options(intra_op_threads, prepack=prepack)
        self._session = load_session(folder / graph.file, provider, options)
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
        """Run the decoder once.

        Args:
            step: new tokens for B consecutive slots, T at most for each.

        Returns:
            float32 [B, 1, vocab_size], or [B, T, vocab_size] with `step.all_logits`; valid until
            the next call.

        Raises:
            EngineFailure: ONNX Runtime refused the inputs or ran out of memory.
        """
        batch, width = step.token_ids.shape
        assert step.first_slot + batch <= self.slots, (step.first_slot, batch, self.slots)
        seqlens = step.num_computed + step.num_new
        total = int(seqlens.max())
        assert total <= self.capacity, (total, self.capacity)
        if step.all_logits:
            # In pages of their own: they go back to the system with the last reference.
            logits = sparse_zeros((batch, width, self.vocab_size), np.dtype(np.float32))
            logits_index = np.tile(np.arange(width), (batch, 1))
            binding = self._bind(step.first_slot, logits)
        else:
            logits = self._logits[:batch]
            logits_index = np.maximum(step.num_new - 1, 0).astype(np.int64)[:, None]
            binding = self._binding(step.first_slot, batch)
        inputs: tuple[tuple[str, IdArray | CountArray], ...] = (
            ("input_ids", np.ascontiguousarray(step.token_ids)),
            ("query_seqlens", step.num_new),
            # length - 1 (index of the last key), not the length; an idle slot that is empty says 0
            ("seqlens_k", np.maximum(seqlens - 1, 0)),
            ("total_sequence_length", np.array([total], np.int32)),
            ("logits_index", logits_index),
            *self._adapter_ids(step),
        )
        for name, array in inputs:
            # Host memory for every provider: ONNX Runtime copies what a kernel wants elsewhere.
            binding.bind_cpu_input(name, array)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's exception classes share no public base
            raise EngineFailure(f"decoder step of {batch} x {width} tokens: {error}") from error
        return logits

    def _adapter_ids(self, step: StepInput) -> tuple[tuple[str, IdArray], ...]:
        """What a graph with adapters is told beside the rest."""
        if not self._graph.num_adapters:
            assert step.adapter_ids is None or not step.adapter_ids.any(), step.adapter_ids
            return ()
        none = np.zeros(len(step.token_ids), np.int64)
        return ((ADAPTER_IDS, none if step.adapter_ids is None else step.adapter_ids),)

    def copy_slot(self, source: int, target: int, num_tokens: int) -> None:
        """Copy the first `num_tokens` of a slot over another slot."""
        self._kv.copy_slot(source, target, num_tokens)

    def save_block(self, slot: int, start: int, block: int) -> None:
        """Copy the block of a slot that begins at token `start` into the pool."""
        self._kv.save_block(slot, start, block)

    def load_blocks(self, blocks: Sequence[int], slot: int, start: int) -> None:
        """Copy blocks of the pool into a slot, one after the other from token `start` on."""
        self._kv.load_blocks(blocks, slot, start)

    def close(self) -> None:
        """Drop session and cache."""
        self._bindings.clear()
        del self._session, self._kv

    def _binding(self, first_slot: int, batch: int) -> ort.IOBinding:
        """The binding of `batch` slots and their last logits; made once for each such pair."""
        key = (first_slot, batch)
        if key not in self._bindings:
            self._bindings[key] = self._bind(first_slot, self._logits[:batch])
        return self._bindings[key]

    def _bind(self, first_slot: int, logits: FloatArray) -> ort.IOBinding:
        """Bind the cache of B slots and the memory that takes their `logits` [B, L, V]."""
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
                    self._kv.pointer(layer, part, first_slot),
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
            *([ADAPTER_IDS] if self._graph.num_adapters else []),
        }
        shapes = {node.name: node.shape for node in self._session.get_inputs()}
        if shapes.keys() != wanted:
            raise ModelBroken(
                f"{self._graph.file}: missing inputs {sorted(wanted - shapes.keys())}, "
                f"unknown inputs {sorted(shapes.keys() - wanted)}"
            )
        # A dimension is a number, a name, or None; only numbers can be wrong.
        cache = (None, self._graph.num_kv_heads, None, self._graph.head_dim)
        shapes |= {node.name: node.shape for node in self._session.get_outputs()}
        for name, told in (
            *((name, cache) for name in past),
            ("logits", (None, None, self.vocab_size)),
        ):
            found = shapes.get(name, [])
            if len(found) != len(told) or any(
                isinstance(size, int) and expected not in (None, size)
                for size, expected in zip(found, told, strict=True)
            ):
                raise ModelBroken(
                    f"{self._graph.file}: {name} has the shape {found}, the manifest says {told}"
                )


def session_options(intra_op_threads: int = 0, *, prepack: bool = True) -> ort.SessionOptions:
    """Make the options of every session here, also of those that judge an export.

    Threads spin while a step runs, for they meet at each of its hundreds of nodes, and stop with
    it: the event loop needs the cores between two steps. A decode step of one sequence takes 0.85
    of the time that it takes without (bench/LOG.md).

    Args:
        intra_op_threads: threads of a step; 0: one per physical core.
        prepack: whether kernels copy weights into the order that they read them in. Without it the
            weights stay in the mapped file, and steps are slower.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    # The arena keeps the largest block of every shape it ever saw; steps vary in shape.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return options


def load_session(
    path: Path, provider: Provider, options: ort.SessionOptions
) -> ort.InferenceSession:
    """Open a graph.

    Raises:
        ModelBroken: ONNX Runtime can't.
    """
    try:
        return ort.InferenceSession(path, options, providers=[PROVIDERS[provider]])
    except Exception as error:  # onnxruntime's exception classes share no public base
        raise ModelBroken(f"{path}: {error}") from error
