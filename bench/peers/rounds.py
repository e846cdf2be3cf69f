"""Measure engines in turn, cell by cell, and keep their answers.

All engines stay loaded, but only one runs: the others are stopped by a signal, so that their idle
threads take no core. Within a cell (batch × context, or a prompt's length) each round visits the
engines in turn, A B C A B C, so that a machine that slows down slows all of them.

Knows nothing about how an engine works: that is in `programs`.
"""

import json
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.child import Child, PeerFailed
from bench.peers.quality import quality
from bench.peers.recipes import Shared

VOCAB = 49152
"""Vocabulary size of the model that all peers are made from."""
WARM_UP_STEPS = 2
"""Steps that are not counted: the processor's caches still hold another engine's weights."""
TOGETHER_TOKENS = 40_000
"""Batch × context up to which all engines keep their KV caches at once, 1.8 GB each in float32.
Larger cells are measured one engine after another."""
ANSWER_S, FILL_S = 300.0, 1800.0


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    cells: list[tuple[int, int]]
    """(batch, context) of the decode cells."""
    prefill: list[int]
    """The lengths of prompts, in tokens."""
    rounds: int
    steps: int
    """Timed steps per decode cell and round."""
    threads: int


@dataclass
class Entry:
    """One engine of a run, and its figures."""

    name: str
    label: str
    child: Child | None = None
    """None: it can't be measured."""
    model: str = ""
    cannot: str = ""
    """Why it is not measured, or no longer."""
    weights_bytes: int = 0
    kv_bytes_per_token: int = 0
    loaded_bytes: int = 0
    peak_bytes: int = 0
    quality: dict[str, float] | None = None
    no_quality: str = ""
    times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Cell, such as `decode 8x128` or `prefill 512` → milliseconds of each step or prompt."""
    refused: dict[str, str] = field(default_factory=dict)
    """Cell → why it has no times."""

    def record(self) -> dict[str, Any]:
        """The figures for the JSON file, without paths of this machine."""
        shown = {name: v for name, v in vars(self).items() if name not in ("child", "model")}
        return {**shown, "ms": {cell: statistics.median(ms) for cell, ms in self.times.items()}}


class Comparison:
    """One run over all engines."""

    def __init__(self, plan: Plan, entries: list[Entry]) -> None:
        self.plan, self.entries = plan, entries
        self.rng = np.random.default_rng(0)

    @property
    def alive(self) -> list[Entry]:
        """Engines that can still be asked."""
        return [entry for entry in self.entries if entry.child is not None and not entry.cannot]

    def prompts(self, batch: int, length: int) -> list[list[int]]:
        """Random prompts, other ones at each call, so that no prompt cache can help."""
        ids: list[list[int]] = self.rng.integers(16, VOCAB - 16, (batch, length)).tolist()
        return ids

    def load(self, entry: Entry) -> None:
        """Start an engine's process and load its model; one that can't is not asked again."""
        assert entry.child is not None
        try:
            entry.child.start(self.plan.threads)
            answer = entry.child.ask(
                "load",
                FILL_S,
                model=entry.model,
                threads=self.plan.threads,
                batches=[*self.plan.cells, *((1, length) for length in self.plan.prefill)],
            )
        except PeerFailed as error:
            entry.cannot = str(error)
            entry.child.end()
            print(f"{entry.label}: {error}", flush=True)
        else:
            entry.weights_bytes = answer.get("weights_bytes", 0)
            entry.kv_bytes_per_token = answer.get("kv_bytes_per_token", 0)
            entry.loaded_bytes = self.ask(entry, "loading", "memory").get("peak_bytes", 0)

    def ask(self, entry: Entry, cell: str, do: str, **command: Any) -> dict[str, Any]:
        """An engine's answer; {} if it can't give one, which is recorded for the cell."""
        assert entry.child is not None
        if not entry.child.running:
            self.load(entry)  # the process died in an earlier cell
            if entry.cannot:
                return {}
        try:
            return entry.child.ask(do, FILL_S if do == "fill" else ANSWER_S, **command)
        except PeerFailed as error:
            entry.refused[cell] = str(error)
            print(f"{entry.label}, {cell}: {error}", flush=True)
            return {}

    def decode(self) -> None:
        """Measure all decode cells, one after another."""
        for batch, context in self.plan.cells:
            name, start = f"decode {batch}x{context}", time.monotonic()
            prompts = self.prompts(batch, context)
            if batch * context <= TOGETHER_TOKENS:
                self.decode_together(self.alive, name, prompts)
            else:
                for entry in self.alive:
                    self.decode_together([entry], name, prompts)
            self.tell(name, start)

    def decode_together(self, entries: list[Entry], name: str, prompts: list[list[int]]) -> None:
        """Measure a cell with some engines: fill, rounds of steps in turn, drop."""

        def able() -> list[Entry]:
            return [entry for entry in entries if not entry.cannot and name not in entry.refused]

        for entry in able():
            self.ask(entry, name, "fill", prompts=prompts)
        for _ in range(self.plan.rounds):
            for entry in able():
                steps = WARM_UP_STEPS + self.plan.steps
                answer = self.ask(entry, name, "decode", steps=steps)
                if "ms" in answer:
                    entry.times[name] += answer["ms"][WARM_UP_STEPS:]
        for entry in able():
            self.ask(entry, name, "drop")

    def prefills(self) -> None:
        """Measure all prefill cells; each timed prompt follows a short one that is not counted."""
        for length in self.plan.prefill:
            name, start = f"prefill {length}", time.monotonic()
            for _ in range(self.plan.rounds):
                warm_up, ids = self.prompts(1, 32)[0], self.prompts(1, length)[0]
                for entry in self.alive:
                    if name not in entry.refused:
                        self.ask(entry, name, "prefill", ids=warm_up)
                        answer = self.ask(entry, name, "prefill", ids=ids)
                        if "ms" in answer:
                            entry.times[name].append(answer["ms"])
            self.tell(name, start)

    def qualities(self, shared: Shared) -> None:
        """Compare each engine's logits over the text with torch's."""
        ids = json.loads(shared.text_ids.read_text())
        reference = np.load(shared.reference, mmap_mode="r")
        with tempfile.TemporaryDirectory(dir=shared.folder) as folder:
            out = Path(folder) / "logits.npy"
            for entry in self.alive:
                start = time.monotonic()
                self.ask(entry, "quality", "logits", ids=ids, out=str(out))
                if "quality" in entry.refused:
                    entry.no_quality = entry.refused.pop("quality")
                    continue
                entry.quality = asdict(quality(reference, np.load(out, mmap_mode="r"), ids))
                self.tell(f"{entry.label}: {entry.quality}", start)

    def memory(self) -> None:
        """Record each engine's peak memory so far, before the logits of a whole text raise it."""
        for entry in self.alive:
            entry.peak_bytes = self.ask(entry, "memory", "memory").get("peak_bytes", 0)

    def tell(self, what: str, start: float) -> None:
        """Print a line of progress."""
        print(f"{what}: {time.monotonic() - start:.0f} s", flush=True)
