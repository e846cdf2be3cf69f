"""Measure the prefix cache and speculative decoding: what the engine need not compute again.

Without HTTP, in one process and on one decoder, with and without in turn: the time to the first
token of a prompt that shares a prefix with an earlier one, against the earlier one's; tokens per
second of a lone greedy stream with and without draft tokens, in text that repeats itself and in
prose.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from app.contract.sampling import SamplingParams
from app.engine.engine import Engine, Events
from app.engine.sequence import EngineRequest
from app.manifest import read_manifest
from app.runtime.decoder import BLOCK_TOKENS
from app.runtime.ort_decoder import OrtDecoder, choose_provider

GREEDY = SamplingParams(temperature=0.0)
MAX_TOKENS = 128
"""Tokens generated from each text."""
LETTERS = """\
Dear Anna, thank you for the parcel that came on Monday. The red scarf fits me well, and the tea \
from the small shop by the harbour is the best I have had this year. We will visit you in the \
spring, when the roads are open again and the garden is green.
The library opens at nine in the morning and closes at six in the evening. Members may borrow ten \
books for three weeks. Children need a card that is signed by a parent. On Sundays the reading \
room is open, but no books are lent.
Take the second street on the left after the bridge, then go straight on until you see a white \
house with a blue door. Ring twice. If nobody answers, the key is with the neighbour in the \
yellow house, who is at home every day until noon.
"""
PROSE = [
    "The history of the lighthouse began long before the town was built. In those days",
    "When people first learned to make bread, they did not know about yeast. They",
    "A good teacher knows that every child learns in another way. Some of them",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m bench reuse`."""
    parser.add_argument("model", type=Path, help="a folder below models/")
    parser.add_argument("--prompt-tokens", type=int, default=1000)
    parser.add_argument("--shared-tokens", type=int, default=950)
    parser.add_argument("--draft-tokens", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: one per physical core")


def run(arguments: argparse.Namespace) -> None:
    """Measure; print the figures, then the same as one line of JSON."""
    manifest = read_manifest(arguments.model)
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    decoder = OrtDecoder(
        arguments.model,
        manifest,
        slots=1,
        capacity=min(max(arguments.prompt_tokens + 2, 512), manifest.graph.context_length),
        provider=choose_provider("auto"),
        intra_op_threads=arguments.threads,
        pool_blocks=2 * arguments.prompt_tokens // BLOCK_TOKENS,
    )
    result = {
        "ttft": _shared_prefix(decoder, arguments),
        "copy": _speculation(decoder, tokenizer, [*map(_copied, LETTERS.splitlines())], arguments),
        "prose": _speculation(decoder, tokenizer, PROSE, arguments),
    }
    for name, figures in result.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    print(json.dumps(result))


def _copied(text: str) -> str:
    changed = text.replace("the", "that", 1)
    return f"Original:\n{text}\n\nThe same text with one word changed:\n{changed[:40]}"


def _shared_prefix(decoder: OrtDecoder, arguments: argparse.Namespace) -> dict[str, float]:
    """Milliseconds to the first token of a prompt, and of one that shares a prefix with it."""
    rng = np.random.default_rng(0)
    total, shared = arguments.prompt_tokens, arguments.shared_tokens
    cold: list[float] = []
    warm: list[float] = []
    for _ in range(arguments.rounds):
        engine = Engine(decoder)
        first = rng.integers(0, decoder.vocab_size, total).tolist()
        second = first[:shared] + rng.integers(0, decoder.vocab_size, total - shared).tolist()
        for prompt, times in ((first, cold), (second, warm)):
            start = time.perf_counter()
            _generate(engine, prompt, 1)
            times.append((time.perf_counter() - start) * 1e3)
    cold_ms, warm_ms = statistics.median(cold), statistics.median(warm)
    return {"cold_ms": cold_ms, "shared_ms": warm_ms, "ratio": warm_ms / cold_ms}


def _speculation(
    decoder: OrtDecoder, tokenizer: Tokenizer, texts: list[str], arguments: argparse.Namespace
) -> dict[str, float]:
    """Tokens per second without and with draft tokens, and how many texts differ."""
    rates: dict[int, list[float]] = {0: [], arguments.draft_tokens: []}
    differing = 0
    for _ in range(arguments.rounds):
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            prompt = ids[: decoder.capacity - MAX_TOKENS]
            written = []
            for draft_tokens, seen in rates.items():
                engine = Engine(decoder, draft_tokens=draft_tokens)
                tokens, seconds = _generate(engine, prompt, MAX_TOKENS)
                seen.append((len(tokens) - 1) / seconds)
                written.append(tokens)
            differing += written[0] != written[1]
    plain, speculative = (statistics.median(seen) for seen in rates.values())
    return {
        "plain_per_s": plain,
        "speculative_per_s": speculative,
        "ratio": speculative / plain,
        "texts_that_differ": differing / arguments.rounds,
    }


def _generate(engine: Engine, prompt: list[int], max_tokens: int) -> tuple[list[int], float]:
    """The tokens of one request, and the seconds from the first to the last of them."""
    engine.add(0, EngineRequest(prompt_ids=prompt, max_tokens=max_tokens, sampling=GREEDY))
    tokens: list[int] = []
    started_s = time.perf_counter()

    def take(events: Events) -> None:
        nonlocal started_s
        if not tokens:
            started_s = time.perf_counter()
        tokens.extend(event.token_id for _, event in events if event.token_id is not None)

    while not engine.idle:
        engine.step(take)
    return tokens, time.perf_counter() - started_s
