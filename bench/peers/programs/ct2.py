"""CTranslate2: greedy `generate_batch`; a step is the time between two of its callbacks.

It keeps nothing between calls but the state of one static prompt, copied to every row. So all rows
of a batch have the text of the first prompt here.
"""

import json
import time
from pathlib import Path

import ctranslate2
import numpy as np

from bench.peers.programs.protocol import Batches, Cannot, Ids, Program, serve

WARM_UP = 2
"""Tokens of a call that are not timed: the first includes reading the prompt."""


class CTranslate2(Program):
    """One model; a batch is a size and a prompt."""

    def load(self, model: str, threads: int, batches: Batches) -> dict[str, int]:
        """Load the folder."""
        del batches
        self.generator = ctranslate2.Generator(
            model, device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads
        )
        self.tokens = json.loads((Path(model) / "vocabulary.json").read_text())
        return {"weights_bytes": (Path(model) / "model.bin").stat().st_size}

    def fill(self, prompts: list[Ids]) -> None:
        """Keep the prompt and read it once, so that its state is cached."""
        self.prompt, self.batch = [self.tokens[i] for i in prompts[0]], len(prompts)
        self.steps(1)

    def step(self) -> None:
        """Not supported: only `steps` can be timed."""
        raise NotImplementedError

    def steps(self, count: int) -> list[float]:
        """Generate tokens for each row and time all but the first few."""
        at: dict[int, float] = {}

        def note(result: ctranslate2.GenerationStepResult) -> bool:
            at[result.step] = time.perf_counter()  # that of the last row remains
            return False

        length = WARM_UP + count
        self.generator.generate_batch(
            [self.prompt[-1:]] * self.batch,
            static_prompt=self.prompt[:-1],
            cache_static_prompt=True,
            min_length=length,
            max_length=length,
            beam_size=1,
            sampling_topk=1,
            include_prompt_in_result=False,
            callback=note,
        )
        times = [at[step] for step in sorted(at)]
        if len(times) != length:
            raise Cannot(f"{len(times)} steps instead of {length}")
        return [b - a for a, b in zip(times[WARM_UP - 1 :], times[WARM_UP:], strict=False)]

    def drop(self) -> None:
        """Do nothing: only the static prompt's state is kept."""

    def prefill(self, ids: Ids) -> None:
        """Generate one token from one prompt."""
        self.generator.generate_batch(
            [[self.tokens[i] for i in ids]],
            min_length=1,
            max_length=1,
            beam_size=1,
            sampling_topk=1,
            include_prompt_in_result=False,
        )

    def logits(self, ids: Ids, out: str) -> None:
        """Run one forward pass."""
        np.save(out, np.array(self.generator.forward_batch([ids]))[0].astype(np.float32))


if __name__ == "__main__":
    serve(CTranslate2())
