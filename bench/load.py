"""Put load on a server over HTTP: TTFT, ITL and tokens/s of `POST /generate` by concurrency.

Knows the server's URL, and a tokenizer.json to count tokens with, because one piece of a stream may
hold several. No prompt is sent twice, in this run or another, so that no cache between requests can
help. The server must run with LLMHOST_RATE_LIMIT_PER_MINUTE=0 and LLMHOST_RATE_LIMIT_BURST=0.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import aiohttp
from tokenizers import Tokenizer

DEFAULT_TOKENIZER = Path("models/HuggingFaceTB--SmolLM2-135M-Instruct/tokenizer.json")
# fmt: off
WORDS = [
    "river", "stone", "market", "winter", "garden", "letter", "window", "morning", "captain",
    "forest", "silver", "bridge", "music", "farmer", "island", "teacher", "candle", "harbour",
    "summer", "village", "doctor", "engine", "mountain", "paper",
]
# fmt: on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m bench load`."""
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds, each of which visits every concurrency"
    )
    parser.add_argument("--tokenizer", type=Path, default=DEFAULT_TOKENIZER)
    parser.add_argument(
        "--intruder-tokens",
        type=int,
        default=0,
        help="prompts of this length arrive one after another while the other streams run",
    )
    parser.add_argument("--intruders", type=int, default=1, help="how many of them")
    parser.add_argument("--health", action="store_true", help="poll /health at the same time")


@dataclass
class Stream:
    """The pieces of one stream, with their times on the monotonic clock."""

    started_s: float = 0.0
    pieces: list[tuple[float, str]] = field(default_factory=list)

    @property
    def ttft_s(self) -> float:
        """Seconds to the first piece."""
        return self.pieces[0][0] - self.started_s

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between pieces."""
        times = [at for at, _ in self.pieces]
        return [b - a for a, b in pairwise(times)]


class Client(ABC):
    """Makes prompts, sends them, and counts the tokens of the answers."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        """Clients with the same seed make the same prompts."""
        self._tokenizer = tokenizer
        self._random = random.Random(seed)  # noqa: S311 # prompts, not secrets

    @abstractmethod
    async def stream(self, prompt: str, max_tokens: int, stream: Stream) -> None:
        """Generate once; pieces are appended to `stream` as they arrive."""

    def prompt(self, num_tokens: int) -> str:
        """A random text of about that many tokens."""
        words = " ".join(self._random.choices(WORDS, k=num_tokens))
        ids = self._tokenizer.encode(words, add_special_tokens=False).ids[:num_tokens]
        text: str = self._tokenizer.decode(ids)
        return text

    def count(self, stream: Stream) -> int:
        """The number of tokens in a stream's text."""
        text = "".join(piece for _, piece in stream.pieces)
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


class LocalLabClient(Client):
    """Speaks LocalLab's dialect: `POST /generate`."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, tokenizer: Tokenizer, seed: int
    ) -> None:
        super().__init__(tokenizer, seed)
        self._session, self._url = session, url

    async def stream(self, prompt: str, max_tokens: int, stream: Stream) -> None:
        """Generate once; pieces are appended to `stream` as they arrive."""
        body = {"prompt": prompt, "stream": True, "max_length": max_tokens, "seed": 0, "raw": True}
        headers = {"Accept": "text/event-stream"}
        stream.started_s = time.monotonic()
        url = f"{self._url}/generate"
        async with self._session.post(url, json=body, headers=headers) as response:
            response.raise_for_status()
            lines: list[str] = []
            async for raw in response.content:
                line = raw.decode().rstrip("\n")
                if line:
                    lines.append(line.removeprefix("data:").removeprefix(" "))
                    continue
                text, lines = "\n".join(lines), []
                if text == "[DONE]":
                    return
                stream.pieces.append((time.monotonic(), text))
        raise RuntimeError(f"the stream ended without [DONE] after {len(stream.pieces)} pieces")


def run(arguments: argparse.Namespace) -> None:
    """Measure; print a table, then the same figures as one line of JSON."""
    asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> None:
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        # the prompts of an earlier run may still be in the server's prefix cache
        client = LocalLabClient(session, arguments.url, tokenizer, seed=time.time_ns())
        await client.stream(client.prompt(8), 4, Stream())  # warm up
        health: list[float] = []
        poll = asyncio.create_task(_poll_health(session, arguments, health))
        if arguments.intruder_tokens:
            result = await _intrude(client, arguments)
        else:
            result = await _concurrency(client, arguments)
        poll.cancel()
    if health:
        result["health_ms"] = {
            "median": statistics.median(health) * 1e3,
            "p99": percentile(health, 0.99) * 1e3,
            "polls": len(health),
        }
        print(f"/health: {result['health_ms']}")
    print(json.dumps(result))


async def _concurrency(client: Client, arguments: argparse.Namespace) -> dict[str, object]:
    rates: dict[int, list[float]] = {n: [] for n in arguments.concurrency}
    streams: dict[int, list[Stream]] = {n: [] for n in arguments.concurrency}
    for _ in range(arguments.rounds):
        for concurrency in arguments.concurrency:
            batch = [Stream() for _ in range(concurrency)]
            start = time.monotonic()
            await asyncio.gather(
                *(
                    client.stream(
                        client.prompt(arguments.prompt_tokens), arguments.max_tokens, stream
                    )
                    for stream in batch
                )
            )
            seconds = time.monotonic() - start
            rates[concurrency].append(sum(map(client.count, batch)) / seconds)
            streams[concurrency] += batch
    print(
        f"{'streams':>8} {'tokens/s':>9} {'ratio':>6} {'TTFT ms':>8} {'p99':>6} "
        f"{'ITL ms':>7} {'p99':>6}"
    )
    first = statistics.median(rates[arguments.concurrency[0]])
    rows = []
    for concurrency in arguments.concurrency:
        ttft = [stream.ttft_s * 1e3 for stream in streams[concurrency]]
        gaps = [gap * 1e3 for stream in streams[concurrency] for gap in stream.gaps_s]
        row = {
            "streams": concurrency,
            "tokens_per_s": statistics.median(rates[concurrency]),
            "ttft_ms": statistics.median(ttft),
            "ttft_p99_ms": percentile(ttft, 0.99),
            "itl_ms": statistics.median(gaps),
            "itl_p99_ms": percentile(gaps, 0.99),
        }
        rows.append(row)
        print(
            f"{concurrency:8} {row['tokens_per_s']:9.1f} {row['tokens_per_s'] / first:6.2f} "
            f"{row['ttft_ms']:8.0f} {row['ttft_p99_ms']:6.0f} "
            f"{row['itl_ms']:7.1f} {row['itl_p99_ms']:6.1f}"
        )
    return {"concurrency": rows}


async def _intrude(client: Client, arguments: argparse.Namespace) -> dict[str, object]:
    """Send long prompts beside running streams: how long do they stop them?"""
    rows: list[dict[str, float]] = []
    for concurrency in arguments.concurrency:
        for _ in range(arguments.rounds):
            running, tasks = await _running_streams(client, arguments, concurrency)
            intruders = [Stream() for _ in range(arguments.intruders)]
            for intruder in intruders:
                await client.stream(client.prompt(arguments.intruder_tokens), 1, intruder)
            ended = sum(task.done() for task in tasks)
            if ended:
                print(
                    f"{ended} of {concurrency} streams ended before the last prompt had been read"
                )
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            rows.append(_gaps_around(running, intruders))
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    for key, value in medians.items():
        print(f"{key}: {value:.1f}")
    return {"intruder": medians}


async def _running_streams(
    client: Client, arguments: argparse.Namespace, concurrency: int
) -> tuple[list[Stream], list[asyncio.Task[None]]]:
    """Start streams until all decode; start again with other prompts if one ends early."""
    while True:
        running = [Stream() for _ in range(concurrency)]
        tasks = [
            asyncio.create_task(
                client.stream(client.prompt(arguments.prompt_tokens), arguments.max_tokens, stream)
            )
            for stream in running
        ]
        while not any(task.done() for task in tasks):
            if all(len(stream.pieces) >= 30 for stream in running):
                return running, tasks
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _gaps_around(running: list[Stream], intruders: list[Stream]) -> dict[str, float]:
    """Gaps between pieces before and during the intruders, in milliseconds and in median steps.

    The server holds back half a character, so that a character of two tokens arrives after two
    steps. Such a gap is not a pause of the engine and is counted separately.
    """
    before: list[float] = []
    during: list[float] = []
    of_characters: list[float] = []
    since_s, until_s = intruders[0].started_s, intruders[-1].pieces[0][0]
    all_started_s = max(stream.pieces[0][0] for stream in running)
    for stream in running:
        for (start, _), (end, text) in pairwise(stream.pieces):
            if all_started_s <= start and end <= since_s:
                before.append(end - start)
            elif start < until_s:
                (during if text.isascii() else of_characters).append(end - start)
    median_s = statistics.median(before)
    return {
        "intruder_ttft_ms": statistics.median(one.ttft_s for one in intruders) * 1e3,
        "gap_before_median_ms": median_s * 1e3,
        "gap_during_median_ms": statistics.median(during) * 1e3,
        "gap_during_p99_ms": percentile(during, 0.99) * 1e3,
        "gap_during_max_ms": max(during) * 1e3,
        "p99_in_median_steps": percentile(during, 0.99) / median_s,
        "max_in_median_steps": max(during) / median_s,
        "gaps": len(during),
        "gaps_before_other_characters": len(of_characters),
        "their_max_in_median_steps": max(of_characters, default=0.0) / median_s,
    }


async def _poll_health(
    session: aiohttp.ClientSession, arguments: argparse.Namespace, seconds: list[float]
) -> None:
    while arguments.health:
        start = time.monotonic()
        async with session.get(f"{arguments.url}/health") as response:
            await response.read()
        seconds.append(time.monotonic() - start)
        await asyncio.sleep(0.05)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that the given share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
