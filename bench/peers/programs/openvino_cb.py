"""OpenVINO GenAI's continuous batching: requests of a pipeline, one `step` at a time, greedy.

Prompts are read before running rows decode (no split fuse), so that all rows of a batch are equally
long. The logits come from the same model in plain OpenVINO, because the pipeline returns none;
attention runs another kernel there, the weights and their arithmetic are the same.
"""

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from bench.peers.programs.protocol import SPARE, Batches, Cannot, Ids, Program, serve


class OpenVino(Program):
    """One pipeline, whose requests are the rows of a batch."""

    def load(self, model: str, threads: int, batches: Batches) -> dict[str, Any]:
        """Load the folder; the cache is as large as the largest batch needs."""
        self.model, self.threads = model, threads
        config = genai.SchedulerConfig()
        config.enable_prefix_caching = False
        config.dynamic_split_fuse = False
        config.max_num_batched_tokens = max(2048, *(tokens + SPARE for _, tokens in batches))
        config.max_num_seqs = max(rows for rows, _ in batches)
        config.num_kv_blocks = max(rows * ((tokens + SPARE) // 16 + 2) for rows, tokens in batches)
        self.pipeline = genai.ContinuousBatchingPipeline(
            Path(model), config, "CPU", {"INFERENCE_NUM_THREADS": threads}
        )
        self.ids = count()
        self.handles: list[Any] = []
        self.counts: list[int] = []
        weights = Path(model) / "openvino_model.bin"
        return {"weights_bytes": weights.stat().st_size}

    def add(self, ids: Ids, max_tokens: int) -> None:
        """Queue a request."""
        config = genai.GenerationConfig()
        config.max_new_tokens = max_tokens
        config.ignore_eos = True
        config.do_sample = False
        tensor = ov.Tensor(np.array([ids], np.int64))
        self.handles.append(self.pipeline.add_request(next(self.ids), tensor, config))

    def fill(self, prompts: list[Ids]) -> None:
        """Queue all prompts and step until each has a token."""
        self.drop()
        for ids in prompts:
            self.add(ids, SPARE)
        self.counts = [0] * len(prompts)
        waiting = list(self.handles)
        while waiting:
            self.pipeline.step()
            waiting = [handle for handle in waiting if not handle.can_read()]

    def step(self) -> None:
        """Decode one token of every row."""
        self.pipeline.step()

    def steps(self, count: int) -> list[float]:
        """Time steps, and check that each gave every row a token."""
        before = self.generated()
        times = super().steps(count)
        given = np.subtract(self.generated(), before)
        if (given != count).any():
            raise Cannot(f"{count} steps gave {given.min()} … {given.max()} tokens per row")
        return times

    def generated(self) -> list[int]:
        """The number of tokens that each row has generated so far."""
        for row, handle in enumerate(self.handles):
            while handle.can_read():
                for output in handle.read().values():
                    self.counts[row] += len(output.generated_ids)
        return list(self.counts)

    def drop(self) -> None:
        """Cancel all requests; the next step frees their blocks."""
        for handle in self.handles:
            handle.cancel()
        if self.handles:
            self.pipeline.step()
        self.handles, self.counts = [], []

    def prefill(self, ids: Ids) -> None:
        """Serve one request for one token."""
        self.add(ids, 1)
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
        self.handles = []

    def logits(self, ids: Ids, out: str) -> None:
        """Run the plain model once."""
        core = ov.Core()
        compiled = core.compile_model(
            str(Path(self.model) / "openvino_model.xml"),
            "CPU",
            {"INFERENCE_NUM_THREADS": self.threads},
        )
        length = len(ids)
        given = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, length), np.int64),
            "position_ids": np.arange(length, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        names = {name for tensor in compiled.inputs for name in tensor.names}
        request = compiled.create_infer_request()
        request.infer({name: value for name, value in given.items() if name in names})
        np.save(out, request.get_tensor("logits").data[0].astype(np.float32))


if __name__ == "__main__":
    serve(OpenVino())
