"""llama.cpp through llama-cpp-python's low-level API: one `llama_decode` per step, flash attention.

Every sequence has cache cells of its own (`kv_unified` off), so that attention does not scan the
cells of other rows; the context is no larger than the batch. Prompts are read one after another.
The argmax of the logits is taken in numpy, the cheapest way to choose greedily.
"""

import ctypes
import os
from typing import Any

import llama_cpp as lib
import numpy as np

from bench.peers.programs.protocol import SPARE, Batches, Cannot, Ids, Program, serve

UBATCH = 512
"""Tokens per prefill step; the library's default."""


class LlamaCpp(Program):
    """One model; a context for each batch, as large as the batch needs."""

    batch: Any
    context: Any

    def load(self, model: str, threads: int, batches: Batches) -> dict[str, int]:
        """Load the GGUF file."""
        del batches
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = lib.llama_model_load_from_file(model.encode(), params)
        if not self.model:
            raise Cannot(f"llama.cpp could not load {model}")
        self.threads = threads
        self.vocab_size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.context = None
        heads = lib.llama_model_n_head_kv(self.model)
        head_dim = lib.llama_model_n_embd(self.model) // lib.llama_model_n_head(self.model)
        layers = lib.llama_model_n_layer(self.model)
        return {
            "weights_bytes": os.path.getsize(model),  # noqa: PTH202
            "kv_bytes_per_token": 2 * layers * heads * head_dim * 2,  # float16
        }

    def fill(self, prompts: list[Ids]) -> None:
        """Make a context and read the prompts."""
        self.open(len(prompts), len(prompts[0]) + SPARE)
        self.latest = []
        for row, ids in enumerate(prompts):
            self.feed(ids, row, 0)
            self.latest.append(int(self.row_logits(-1).argmax()))
        self.position = len(prompts[0])

    def step(self) -> None:
        """Decode one token of every sequence in one batch."""
        batch = self.batch
        for row, token in enumerate(self.latest):
            self.put(row, token, self.position, row, True)
        batch.n_tokens = len(self.latest)
        self.run()
        self.position += 1
        self.latest = [int(self.row_logits(row).argmax()) for row in range(len(self.latest))]

    def drop(self) -> None:
        """Free the context."""
        if self.context is not None:
            lib.llama_batch_free(self.batch)
            lib.llama_free(self.context)
            self.context = None

    def prefill(self, ids: Ids) -> None:
        """Read into a new context, which takes a millisecond to make."""
        self.open(1, len(ids) + SPARE)
        self.feed(ids, 0, 0)
        self.row_logits(-1).argmax()
        self.drop()

    def logits(self, ids: Ids, out: str) -> None:
        """Save the logits of all positions, in as many steps as a prefill takes."""
        self.open(1, len(ids) + SPARE)
        saved = np.empty((len(ids), self.vocab_size), np.float32)
        for start in range(0, len(ids), UBATCH):
            part = ids[start : start + UBATCH]
            self.feed(part, 0, start, every=True)
            for i in range(len(part)):
                saved[start + i] = self.row_logits(i)
        np.save(out, saved)
        self.drop()

    def open(self, batch: int, length: int) -> None:
        """Make a context for `batch` sequences of `length` tokens each."""
        self.drop()
        params = lib.llama_context_default_params()
        length = -(-length // 256) * 256  # cells are allocated in blocks of 256
        params.n_ctx = batch * length
        params.n_batch = params.n_ubatch = UBATCH
        params.n_seq_max = batch
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        params.kv_unified = False
        self.context = lib.llama_init_from_model(self.model, params)
        if not self.context:
            raise Cannot(f"llama.cpp refused a context of {batch} × {length}")
        self.batch = lib.llama_batch_init(max(UBATCH, batch), 0, 1)

    def feed(self, ids: Ids, row: int, start: int, *, every: bool = False) -> None:
        """Read tokens of one sequence, with logits of the last token or, with `every`, of all."""
        for first in range(0, len(ids), UBATCH):
            part = ids[first : first + UBATCH]
            for i, token in enumerate(part):
                last = first + i == len(ids) - 1
                self.put(i, token, start + first + i, row, every or last)
            self.batch.n_tokens = len(part)
            self.run()

    def put(self, i: int, token: int, position: int, row: int, wanted: bool) -> None:
        """Write entry `i` of the batch."""
        batch = self.batch
        batch.token[i], batch.pos[i] = token, position
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, row
        batch.logits[i] = wanted

    def run(self) -> None:
        """Run the batch."""
        code = lib.llama_decode(self.context, self.batch)
        if code:
            raise Cannot(f"llama_decode returned {code}")

    def row_logits(self, i: int) -> np.ndarray:
        """A view of the logits of entry `i`."""
        pointer = lib.llama_get_logits_ith(self.context, i)
        return np.ctypeslib.as_array(
            ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (self.vocab_size,)
        )


if __name__ == "__main__":
    serve(LlamaCpp())
