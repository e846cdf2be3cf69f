"""Measure a step of the engine without HTTP, by batch and context, and prefill by length.

The engine is the server's, sampling at LocalLab's documented defaults; the rows are filled with
random tokens. Every round visits all cells, so that a machine that slows down slows all of
them; the figure of a cell is the median of its steps in all rounds.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from app.contract.sampling import SamplingParams
from app.engine.engine import Engine
from app.engine.sequence import EngineRequest
from app.manifest import read_manifest
from app.runtime.decoder import Decoder, FloatArray, StepInput
from app.runtime.ort_decoder import OrtDecoder, choose_provider

SAMPLING = SamplingParams(temperature=0.7, top_p=0.9, top_k=80, repetition_penalty=1.15, seed=0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m bench decode`."""
    parser.add_argument("model", type=Path, help="a folder below models/")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--context", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--prefill", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--steps", type=int, default=12, help="timed steps per cell and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: one per physical core")


class TimedDecoder:
    """A decoder that adds up the seconds that its `run` takes."""

    def __init__(self, inner: Decoder) -> None:
        self._inner = inner
        self.seconds = 0.0
        self.slots, self.capacity = inner.slots, inner.capacity
        self.vocab_size, self.can_copy_slots = inner.vocab_size, inner.can_copy_slots
        self.copy_slot, self.close = inner.copy_slot, inner.close
        self.pool_blocks = inner.pool_blocks
        self.min_first_chunk = inner.min_first_chunk
        self.save_block, self.load_blocks = inner.save_block, inner.load_blocks

    def run(self, step: StepInput) -> FloatArray:
        """Run one step and time it."""
        start = time.perf_counter()
        logits = self._inner.run(step)
        self.seconds += time.perf_counter() - start
        return logits


def run(arguments: argparse.Namespace) -> None:
    """Measure; print a table, then the same figures as one line of JSON."""
    manifest = read_manifest(arguments.model)
    decoder = TimedDecoder(
        OrtDecoder(
            arguments.model,
            manifest,
            slots=max(arguments.batch),
            capacity=max(*arguments.context, *arguments.prefill) + arguments.steps + 2,
            provider=choose_provider("auto"),
            intra_op_threads=arguments.threads,
        )
    )
    step_ms: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    outside: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    prefill_rate: defaultdict[int, list[float]] = defaultdict(list)
    rng = np.random.default_rng(0)

    def prompt(length: int) -> list[int]:
        ids: list[int] = rng.integers(0, manifest.graph.vocab_size, length).tolist()
        return ids

    for _ in range(arguments.rounds):
        for context in arguments.context:
            for batch in arguments.batch:
                engine = filled(decoder, [prompt(context) for _ in range(batch)], arguments.steps)
                for _ in range(arguments.steps):
                    decoder.seconds = 0.0
                    seconds = _timed_step(engine)
                    step_ms[batch, context].append(seconds * 1e3)
                    outside[batch, context].append(1 - decoder.seconds / seconds)
        for length in arguments.prefill:
            engine = Engine(decoder)
            engine.add(0, EngineRequest(prompt_ids=prompt(length), max_tokens=1, sampling=SAMPLING))
            seconds = 0.0
            while not engine.idle:
                seconds += _timed_step(engine)
            prefill_rate[length].append(length / seconds)

    print(f"{manifest.model_id}, {manifest.quantisation.scheme}, KL {manifest.quality.mean_kl:.5f}")
    print(f"{'batch':>6} {'context':>8} {'ms/step':>10} {'tokens/s':>9} {'outside the run':>16}")
    cells = []
    for (batch, context), times in step_ms.items():
        ms, share = statistics.median(times), statistics.median(outside[batch, context])
        print(f"{batch:6} {context:8} {ms:10.1f} {batch / ms * 1e3:9.1f} {share:15.1%}")
        cells.append({"batch": batch, "context": context, "ms": ms, "outside": share})
    prefill = {length: statistics.median(rates) for length, rates in prefill_rate.items()}
    for length, rate in prefill.items():
        print(f"prefill of {length}: {rate:.0f} tokens/s")
    print(json.dumps({"decode": cells, "prefill_tokens_per_s": prefill}))


def filled(
    decoder: Decoder, prompts: list[list[int]], steps: int, sampling: SamplingParams = SAMPLING
) -> Engine:
    """An engine whose rows have all been prefilled and that decodes from its next step on."""
    engine = Engine(decoder)
    for i, ids in enumerate(prompts):
        # no row must end while steps are timed
        engine.add(i, EngineRequest(prompt_ids=ids, max_tokens=10**6, sampling=sampling))
    while any(s.prefilling for s in engine.scheduler.running) or engine.scheduler.num_waiting:
        _timed_step(engine)
        # rows that are ready decode while others are still prefilled: what they decode is dropped
        for sequence in engine.scheduler.running:
            if not sequence.prefilling:
                del sequence.token_ids[sequence.num_prompt + 1 :]
                sequence.num_computed = sequence.num_prompt
    assert all(s.num_prompt + steps < decoder.capacity for s in engine.scheduler.running)
    return engine


def _timed_step(engine: Engine) -> float:
    start = time.perf_counter()
    engine.step(lambda _: None)
    return time.perf_counter() - start
