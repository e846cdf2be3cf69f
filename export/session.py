"""Run an exported graph with logits at any positions, which the server's decoder never asks for.

One KV buffer, bound as past and present alike, as `app.runtime.ort_decoder` does. Knows the
graph's inputs (app/manifest.py); judges nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from app.manifest import Graph
from app.runtime.ort_decoder import session_options

Logits = npt.NDArray[np.float32]


class GraphSession:
    """A loaded graph and the cache of `rows` sequences."""

    def __init__(self, folder: Path, graph: Graph, *, rows: int, capacity: int) -> None:
        # what is judged is what will be served
        self.session = ort.InferenceSession(
            folder / graph.file, session_options(), providers=["CPUExecutionProvider"]
        )
        self.graph, self.rows, self.capacity = graph, rows, capacity
        shape = (rows, graph.num_kv_heads, capacity, graph.head_dim)
        dtype = np.dtype(graph.kv_dtype)
        self.buffers = {
            f"{layer}.{part}": np.zeros(shape, dtype)
            for layer in range(graph.num_layers)
            for part in ("key", "value")
        }
        self.lengths = np.zeros(rows, np.int32)

    def reset(self) -> None:
        """Forget all sequences."""
        self.lengths[:] = 0

    def feed(
        self, tokens: Sequence[Sequence[int]], *, all_logits: bool = False, min_width: int = 1
    ) -> Logits:
        """Append tokens to rows 0 … B-1, a row may get none; pad to `min_width` at least.

        Returns:
            [B, L, V]: logits of each row's last new token (L = 1), or of all S positions.
        """
        batch, width = len(tokens), max(min_width, *(len(row) for row in tokens))
        input_ids = np.zeros((batch, width), np.int64)
        for i, row in enumerate(tokens):
            input_ids[i, : len(row)] = row
        new = np.array([len(row) for row in tokens], np.int32)
        self.lengths[:batch] += new
        lengths = self.lengths[:batch]
        assert lengths.max() <= self.capacity, (lengths.max(), self.capacity)
        last = np.maximum(new - 1, 0).astype(np.int64)[:, None]
        every = np.broadcast_to(np.arange(width), (batch, width))
        binding = self.session.io_binding()
        inputs = {
            "input_ids": input_ids,
            "query_seqlens": new,
            "seqlens_k": np.maximum(lengths - 1, 0).astype(np.int32),
            "total_sequence_length": lengths.max(keepdims=True),
            "logits_index": np.ascontiguousarray(every if all_logits else last),
        }
        for name, value in inputs.items():
            binding.bind_cpu_input(name, value)
        binding.bind_output("logits", "cpu")  # first bound, first in get_outputs
        for name, buffer in self.buffers.items():
            part = buffer[:batch]
            where = ("cpu", 0, part.dtype, part.shape, part.ctypes.data)
            binding.bind_input(f"past_key_values.{name}", *where)
            binding.bind_output(f"present.{name}", *where)
        self.session.run_with_iobinding(binding)
        logits: Logits = binding.get_outputs()[0].numpy()
        return logits
