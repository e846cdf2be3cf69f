"""`python -m bench PART …`: measure the engine, a running server, or ours beside other engines."""

import argparse
import importlib
import sys
from typing import Final

PARTS: Final = {
    "decode": ("bench.decode", "the engine without HTTP: steps by batch and context, prefill"),
    "reuse": ("bench.reuse", "the engine without HTTP: shared prompts and speculative decoding"),
    "load": ("bench.load", "a running server: TTFT, ITL and tokens/s by number of streams"),
    "embeddings": (
        "bench.embeddings",
        "embeddings beside sentence-transformers, and many texts beside text streams",
    ),
    "soak": ("bench.soak", "a running server under mixed load for a long time: memory"),
    "attack": ("bench.attack.measure", "honest streams beside attackers, in many shapes"),
    "fuzz": ("bench.fuzz.run", "mutated requests over all endpoints"),
    "families": ("bench.families.run", "what becomes of every type of model, exported in tiny"),
    "scale": ("bench.scale.run", "replicas by the hundreds on paper, from measured times of one"),
    "peers": ("bench.peers.environments", "make the other engines' environments"),
    "compare": ("bench.compare", "our engine beside the other engines"),
}
"""Module and summary of each part. Only the chosen one is imported: not every part needs what
another does."""


def main(arguments: list[str] | None = None) -> None:
    """Choose the part and run it."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parts = parser.add_subparsers(required=True)
    for name, (module, summary) in PARTS.items():
        sub = parts.add_parser(name, help=summary, description=summary)
        if given[:1] == [name]:
            part = importlib.import_module(module)
            part.add_arguments(sub)
            sub.set_defaults(run=part.run)
    chosen = parser.parse_args(given)
    chosen.run(chosen)


if __name__ == "__main__":
    main()
