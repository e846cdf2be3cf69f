"""Transformers on torch in float32: one forward pass per step over a growing cache, with SDPA.

The prompts of a batch are equally long, so they are read side by side without padding.
"""

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache

from bench.peers.programs.protocol import Batches, Ids, Program, serve


class Transformers(Program):
    """One model and the cache of one batch."""

    cache: DynamicCache | None

    @torch.inference_mode()
    def load(self, model: str, threads: int, batches: Batches) -> dict[str, int]:
        """Load the folder."""
        del batches
        torch.set_num_threads(threads)
        self.model = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, attn_implementation="sdpa"
        ).eval()
        config = self.model.config
        head_dim = config.hidden_size // config.num_attention_heads
        return {
            # Embedding and output layer share a matrix, which is counted once.
            "weights_bytes": sum(p.numel() * p.element_size() for p in self.model.parameters()),
            "kv_bytes_per_token": 2
            * config.num_hidden_layers
            * config.num_key_value_heads
            * head_dim
            * 4,
        }

    @torch.inference_mode()
    def forward(self, ids: torch.Tensor, keep: int) -> torch.Tensor:
        """Logits of the last `keep` positions (0: all)."""
        logits: torch.Tensor = self.model(
            input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=keep
        ).logits
        return logits

    def fill(self, prompts: list[Ids]) -> None:
        """Read the prompts side by side, some tokens of each at a time."""
        self.cache = DynamicCache()
        ids = torch.tensor(prompts)
        # Wide batches of long prompts would need gigabytes for their activations.
        for part in ids.split(max(16, 2048 // len(prompts)), dim=1):
            logits = self.forward(part, 1)
        self.latest = logits[:, -1].argmax(-1, keepdim=True)

    def step(self) -> None:
        """Feed every row one token."""
        self.latest = self.forward(self.latest, 1)[:, -1].argmax(-1, keepdim=True)

    def drop(self) -> None:
        """Forget the cache."""
        self.cache = None

    def prefill(self, ids: Ids) -> None:
        """Run one forward pass."""
        self.cache = DynamicCache()
        self.forward(torch.tensor([ids]), 1)[:, -1].argmax(-1)
        self.drop()

    def logits(self, ids: Ids, out: str) -> None:
        """Run one forward pass."""
        self.cache = DynamicCache()
        np.save(out, self.forward(torch.tensor([ids]), 0)[0].numpy())
        self.drop()


if __name__ == "__main__":
    serve(Transformers())
