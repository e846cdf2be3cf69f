"""A peer's program whose engine counts: for tests of the process around it."""

import os
import signal
import sys

from bench.peers.programs.protocol import Batches, Cannot, Ids, Program, serve


class Counting(Program):
    def load(self, model: str, threads: int, batches: Batches) -> dict[str, int]:
        sys.stdout.write("libraries print where they like\n")
        os.write(1, b"even below Python\n")
        return {"weights_bytes": len(model), "kv_bytes_per_token": threads * len(batches)}

    def fill(self, prompts: list[Ids]) -> None:
        self.prompts = prompts

    def step(self) -> None:
        self.prompts = [[*prompt, len(prompt)] for prompt in self.prompts]

    def drop(self) -> None:
        os._exit(3)

    def prefill(self, ids: Ids) -> None:
        if not ids:
            raise Cannot("nothing to read")
        signal.pause()  # no answer ever comes

    def logits(self, ids: Ids, out: str) -> None:
        raise ValueError(f"no logits of {len(ids)} tokens in {out}")


if __name__ == "__main__":
    serve(Counting())
