"""Compile JSON schemas and grammars in a process of its own, under limits of time and memory.

A script for `grammars`: reads JSON with their texts and the library's limits, writes the first one
that can't be compiled as [index, why], or null. Deciding whether two patterns can both match
may take for ever, and the library has no limit for it; here that ends this process and nothing
else. Each schema is followed for a while too: some are compiled in no time and then cost more than
the limits at the first digit. Imports nothing of ours.
"""

import json
import random
import resource
import signal
import sys
import time

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

CPU_S = 2.0
"""For all schemas together, the start of Python (0.1 s) included. Usual schemas take 1 ms; the
slowest honest one found below the limit of size, 1,900 properties, 0.3 s on a fast machine and
twice that on a busy one."""
MEMORY_BYTES = 2**30
TRIAL_STEPS = 500
TRIAL_CPU_S = 0.2


class _Bytes:
    """The smallest tokenizer there is: one token per byte, and an end."""

    eos_token_id = 256
    bos_token_id = None
    tokens = [bytes([byte]) for byte in range(256)] + [b"<end>"]
    special_token_ids = (256,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def follow(matcher: LLMatcher) -> None:
    """Write a random text that ends soon; the matcher fails if nothing satisfies its schema."""
    rng = random.Random(0)  # noqa: S311 # no secret
    until_s = time.process_time() + TRIAL_CPU_S
    for _ in range(TRIAL_STEPS):
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        tokens = [token for token in range(257) if mask >> token & 1]
        if matcher.is_error() or 256 in tokens or time.process_time() > until_s:
            return
        closing = [byte for byte in b'"]}' if byte in tokens]
        matcher.consume_token(rng.choice(closing if closing and rng.random() < 0.5 else tokens))
        if matcher.is_stopped():
            return


def main() -> None:
    """Check what stdin holds; limits and schemas come from `grammars`."""
    signal.setitimer(signal.ITIMER_PROF, CPU_S)  # ends the process
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    asked = json.load(sys.stdin)
    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()))
    limits = LLParserLimits(**asked["limits"])
    verdict = None
    for index, (text, is_lark) in enumerate(asked["schemas"]):
        read = LLMatcher.grammar_from_lark if is_lark else LLMatcher.grammar_from_json_schema
        grammar = read(text)
        matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
        if not matcher.is_error():
            follow(matcher)
        if matcher.is_error():
            verdict = [index, matcher.get_error()]
            break
    json.dump(verdict, sys.stdout)


if __name__ == "__main__":
    main()
