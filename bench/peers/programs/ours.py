"""This project's engine, without HTTP: `Engine` over `OrtDecoder`, as the server runs them.

Greedy, like the peers, or, with the argument `sampled`, at LocalLab's documented defaults, which
cost more. Each step gives every row one token: speculation would be another measurement.
"""

import sys
from pathlib import Path

import numpy as np

from app.contract.sampling import SamplingParams
from app.engine.engine import Engine, Events
from app.engine.sequence import EngineRequest
from app.manifest import read_manifest
from app.runtime.decoder import StepInput
from app.runtime.ort_decoder import OrtDecoder
from bench.decode import SAMPLING, filled
from bench.peers.programs.protocol import SPARE, Batches, Cannot, Ids, Program, serve

CHUNK = 128


class Ours(Program):
    """Makes a decoder and an engine for each batch, as large as it needs."""

    def __init__(self, sampling: SamplingParams) -> None:
        self.sampling = sampling

    def load(self, model: str, threads: int, batches: Batches) -> dict[str, int]:
        """Load the model folder."""
        self.folder, self.threads = Path(model), threads
        self.manifest = read_manifest(self.folder)
        graph = self.manifest.graph
        self.longest = max(tokens for _, tokens in batches) + SPARE
        self.decoder = self.open(1, self.longest)
        return {
            "weights_bytes": self.manifest.files[f"{graph.file}.data"].size_bytes,
            "kv_bytes_per_token": graph.kv_bytes_per_token,
        }

    def open(self, slots: int, capacity: int) -> OrtDecoder:
        """A decoder whose cache has `slots` rows of `capacity` tokens."""
        return OrtDecoder(
            self.folder,
            self.manifest,
            slots=slots,
            capacity=min(capacity, self.manifest.graph.context_length),
            intra_op_threads=self.threads,
        )

    def fill(self, prompts: list[Ids]) -> None:
        """Read the prompts chunk by chunk, as the engine does."""
        self.decoder.close()
        self.decoder = self.open(len(prompts), len(prompts[0]) + SPARE)
        self.engine = filled(self.decoder, prompts, 1, self.sampling)
        self.rows = len(prompts)

    def step(self) -> None:
        """Run one step of the engine, sampling included."""
        events: Events = []
        self.engine.step(events.extend)
        tokens = sum(event.token_id is not None for _, event in events)
        if tokens != self.rows:
            raise Cannot(f"a step gave {tokens} tokens for {self.rows} rows")

    def drop(self) -> None:
        """Free the cache's memory."""
        self.decoder.close()
        self.decoder = self.open(1, self.longest)

    def prefill(self, ids: Ids) -> None:
        """Serve one request for one token."""
        engine = Engine(self.decoder)
        engine.add(0, EngineRequest(prompt_ids=ids, max_tokens=1, sampling=self.sampling))
        while not engine.idle:
            engine.step(lambda _: None)

    def logits(self, ids: Ids, out: str) -> None:
        """Compute all positions, in chunks like a prompt's."""
        decoder = self.open(1, len(ids))
        saved = np.empty((len(ids), decoder.vocab_size), np.float32)
        for start in range(0, len(ids), CHUNK):
            part = ids[start : start + CHUNK]
            step = StepInput(
                first_slot=0,
                token_ids=np.array([part], np.int64),
                num_new=np.array([len(part)], np.int32),
                num_computed=np.array([start], np.int32),
                all_logits=True,
            )
            saved[start : start + len(part)] = decoder.run(step)[0]
        decoder.close()
        np.save(out, saved)


if __name__ == "__main__":
    serve(Ours(SAMPLING if "sampled" in sys.argv[1:] else SamplingParams(temperature=0.0)))
