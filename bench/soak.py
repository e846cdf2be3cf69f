"""Mixed load over HTTP for a long time: does memory grow, does anything unexpected happen?

Clients generate texts of all lengths, whole and streamed, hang up in the middle, and with
`--manage` load and unload the server's models meanwhile. Needs the server's process on this
machine, to read its resident memory. The server runs with LLMHOST_RATE_LIMIT_PER_MINUTE=0 and
LLMHOST_RATE_LIMIT_BURST=0.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import Counter
from urllib.parse import urlsplit

import aiohttp
import psutil

from bench.load import WORDS

SAMPLE_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m bench soak`."""
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--warm-up", type=float, default=300, help="seconds before memory counts")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--max-prompt-words", type=int, default=600)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--manage", action="store_true", help="load and unload models as well")


class Soak:
    """The clients, and what they saw."""

    def __init__(self, session: aiohttp.ClientSession, arguments: argparse.Namespace) -> None:
        self._session, self._arguments = session, arguments
        self.num_clients: int = arguments.clients
        self._random = random.Random(0)  # noqa: S311 # load, not secrets
        self.models: list[str] = []
        self.seen: Counter[str] = Counter()
        self.unexpected: list[str] = []

    async def find_models(self) -> None:
        """Ask which models there are."""
        async with self._session.get("/models/available") as response:
            self.models = [model["id"] for model in (await response.json())["models"]]

    async def client(self, until_s: float) -> None:
        """Send one request after another."""
        while time.monotonic() < until_s:
            choice = self._random.random()
            if self._arguments.manage and choice < 0.12:
                await self._ask("load", "/models/load", {"model_id": self._model()})
            elif self._arguments.manage and choice < 0.2:
                named = self._random.random() < 0.5
                body = {"model_id": self._model()} if named else None
                await self._ask("unload", "/models/unload", body)
            else:
                await self._generate()

    async def unload_all(self) -> None:
        """Leave no model in memory."""
        for model in self.models:
            await self._ask("unload", "/models/unload", {"model_id": model})

    async def _generate(self) -> None:
        words = self._random.choices(
            WORDS, k=int(self._arguments.max_prompt_words ** self._random.random())
        )
        body = {
            "prompt": " ".join(words),
            "max_length": self._random.randint(1, self._arguments.max_tokens),
            "model_id": self._model(),
            "stream": self._random.random() < 0.7,
            "temperature": self._random.choice([0.0, 0.7, 1.2]),
        }
        drops = body["stream"] and self._random.random() < 0.2
        await self._ask("drop" if drops else "generate", "/generate", body, drops=drops)

    async def _ask(self, what: str, path: str, body: object, *, drops: bool = False) -> None:
        async with self._session.post(path, json=body) as response:
            self.seen[f"{what} {response.status}"] += 1
            if drops:
                await response.content.readany()
                return
            text = await response.text()
            whole = response.content_type == "application/json" or text.endswith("data: [DONE]\n\n")
            # 400: named or current model was just unloaded; 429: the queue is full
            expected = {200, 429, 400} if self._arguments.manage else {200, 429}
            if response.status not in expected or not whole:
                self.unexpected.append(f"{what} {response.status} {text[-200:]}")

    def _model(self) -> str:
        return self._random.choice(self.models)


def run(arguments: argparse.Namespace) -> None:
    """Drive, print what was seen and how memory went, and the same as JSON in the last line."""
    asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> None:
    server = find_server(urlsplit(arguments.url).port or 80)
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        arguments.url, timeout=timeout, connector=connector
    ) as session:
        soak = Soak(session, arguments)
        await soak.find_models()
        rss_mb: list[tuple[float, float]] = []
        if arguments.manage:  # memory counts between states without a model
            await _drive(soak, arguments.warm_up, server, [])
            await soak.unload_all()
            start_mb = _rss_mb(server)
            await _drive(soak, arguments.seconds, server, rss_mb)
            await soak.unload_all()
            end_mb = _rss_mb(server)
        else:
            await _drive(soak, arguments.warm_up, server, rss_mb)
            start_mb = _mean_of_last(rss_mb)
            await _drive(soak, arguments.seconds - arguments.warm_up, server, rss_mb)
            end_mb = _mean_of_last(rss_mb)
    result = {
        "seconds": arguments.seconds,
        "start_mb": round(start_mb, 1),
        "end_mb": round(end_mb, 1),
        "ratio": round(end_mb / start_mb, 4),
        "highest_mb": round(max(mb for _, mb in rss_mb), 1),
        "slope_mb_per_hour": round(_slope(rss_mb, arguments) * 3600, 2),
        "seen": dict(sorted(soak.seen.items())),
        "unexpected": soak.unexpected[:20],
    }
    for key, value in result.items():
        print(f"{key}: {value}")
    print(json.dumps(result))


async def _drive(
    soak: Soak, seconds: float, server: psutil.Process, rss_mb: list[tuple[float, float]]
) -> None:
    until_s = time.monotonic() + seconds
    clients = asyncio.gather(*(soak.client(until_s) for _ in range(soak.num_clients)))
    while not clients.done():
        rss_mb.append((time.monotonic(), _rss_mb(server)))
        await asyncio.wait([clients], timeout=SAMPLE_S)
    await clients


def find_server(port: int) -> psutil.Process:
    """The process with the most memory of those that listen on a port and their children.

    Raises:
        LookupError: nothing listens there, or it is not ours to see.
    """
    listening = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    found = [psutil.Process(pid) for pid in listening if pid is not None]
    if not found:
        raise LookupError(f"no process of this machine is seen to listen on port {port}")
    family = [*found, *(child for process in found for child in process.children(recursive=True))]
    return max(family, key=lambda process: process.memory_info().rss)


def _rss_mb(server: psutil.Process) -> float:
    return server.memory_info().rss / 1e6


def _mean_of_last(rss_mb: list[tuple[float, float]]) -> float:
    """Over the last half minute, for memory breathes with what is being generated."""
    return statistics.fmean(mb for _, mb in rss_mb[-int(30 / SAMPLE_S) :])


def _slope(rss_mb: list[tuple[float, float]], arguments: argparse.Namespace) -> float:
    """Megabytes a second, by least squares, without the warm-up."""
    begin_s = rss_mb[0][0] + (0 if arguments.manage else arguments.warm_up)
    points = [(at, mb) for at, mb in rss_mb if at >= begin_s]
    return statistics.linear_regression(*zip(*points, strict=True)).slope
