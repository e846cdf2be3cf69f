"""onnxruntime-genai: a greedy `Generator` for the whole batch, past and present sharing a cache.

Its model is made by its own model builder. The end token is set to one that is never chosen, so
that no row ends while it is timed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og

from bench.peers.programs.protocol import SPARE, Batches, Cannot, Ids, Program, failing_as, serve


class GenAi(Program):
    """One model; a generator for each batch."""

    generator: Any

    def load(self, model: str, threads: int, batches: Batches) -> dict[str, int]:
        """Load the folder."""
        del batches
        written = json.loads((Path(model) / "genai_config.json").read_text())["model"]
        decoder = written["decoder"]
        config = og.Config(model)
        session = {"intra_op_num_threads": threads}
        never = written["vocab_size"] - 1
        config.overlay(
            json.dumps({"model": {"decoder": {"session_options": session}, "eos_token_id": never}})
        )
        self.model = og.Model(config)
        self.generator = None
        return {
            "weights_bytes": sum(path.stat().st_size for path in Path(model).glob("*.onnx.data")),
            "kv_bytes_per_token": 2
            * decoder["num_hidden_layers"]
            * decoder["num_key_value_heads"]
            * decoder["head_size"]
            * 4,
        }

    def open(self, batch: int, length: int) -> None:
        """Make a generator for `batch` rows of `length` tokens."""
        self.drop()
        params = og.GeneratorParams(self.model)
        params.set_search_options(max_length=length, batch_size=batch, do_sample=False)
        self.generator = og.Generator(self.model, params)

    def fill(self, prompts: list[Ids]) -> None:
        """Read the prompts side by side."""
        self.open(len(prompts), len(prompts[0]) + SPARE)
        self.generator.append_tokens(np.array(prompts, np.int32))
        self.step()

    def step(self) -> None:
        """Generate one token for every row."""
        self.generator.generate_next_token()
        if self.generator.is_done():
            raise Cannot("the generator ended")

    def drop(self) -> None:
        """Free the generator."""
        self.generator = None

    def prefill(self, ids: Ids) -> None:
        """Read the prompt into a new generator."""
        self.open(1, len(ids) + SPARE)
        self.generator.append_tokens(np.array([ids], np.int32))
        self.step()
        self.drop()

    def logits(self, ids: Ids, out: str) -> None:
        """Save the graph's output after the prompt."""
        self.open(1, len(ids) + SPARE)
        self.generator.append_tokens(np.array([ids], np.int32))
        with failing_as("no logits"):
            logits = np.array(self.generator.get_output("logits"))
        if logits.shape[:2] != (1, len(ids)):
            raise Cannot(f"logits have shape {logits.shape}")
        np.save(out, logits[0].astype(np.float32))
        self.drop()


if __name__ == "__main__":
    serve(GenAi())
