"""Put mixed load on a server for a long time: does memory grow, does anything unexpected happen?

Clients generate texts of all lengths, whole and streamed, hang up in the middle, and with
`--manage` also load and unload models. Without `--manage`, every slot of the KV cache first takes a
prompt as long as any that will follow: memory pages become resident when they are first written,
and only later growth counts. The server must run on this Linux machine, where its resident memory
can be read, with LLMHOST_RATE_LIMIT_PER_MINUTE=0 and LLMHOST_RATE_LIMIT_BURST=0.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psutil

from bench.load import WORDS

SAMPLE_S = 2.0
LAST = int(30 / SAMPLE_S)
"""The number of samples taken in half a minute."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m bench soak`."""
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--warm-up", type=float, default=300, help="seconds before memory counts")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--max-prompt-words", type=int, default=600)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--manage", action="store_true", help="load and unload models as well")


@dataclass(frozen=True)
class ResidentMemory:
    """Resident memory of a process at one moment, in MB."""

    at_s: float
    """On the monotonic clock."""
    all_mb: float
    caches_mb: float
    """Shared anonymous pages, which hold the KV cache and the prefix cache and nothing else."""

    @property
    def rest_mb(self) -> float:
        """Weights, heap and code."""
        return self.all_mb - self.caches_mb


class Soak:
    """The clients, and what they have seen."""

    def __init__(self, session: aiohttp.ClientSession, arguments: argparse.Namespace) -> None:
        self._session, self._arguments = session, arguments
        self.num_clients: int = arguments.clients
        self._random = random.Random(0)  # noqa: S311 # load, not secrets
        self.models: list[str] = []
        self.seen: Counter[str] = Counter()
        self.unexpected: list[str] = []

    async def find_models(self) -> None:
        """Ask which models there are; without `--manage` only the loaded one is used."""
        async with self._session.get("/models/available") as response:
            self.models = [model["id"] for model in (await response.json())["models"]]
        if not self._arguments.manage:
            async with self._session.get("/health") as response:
                self.models = [(await response.json())["model"]]

    async def reach_peak(self) -> None:
        """Send a prompt of the greatest length to every slot at once."""
        async with self._session.get("/health") as response:
            slots = (await response.json())["slots"]
        await asyncio.gather(
            *(
                self._ask("peak", "/generate", self._body(self._arguments.max_prompt_words))
                for _ in range(slots)
            )
        )

    async def client(self, until_s: float) -> None:
        """Send one request after another until a time on the monotonic clock."""
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
        """Unload every model."""
        for model in self.models:
            await self._ask("unload", "/models/unload", {"model_id": model})

    async def _generate(self) -> None:
        body = self._body(int(self._arguments.max_prompt_words ** self._random.random()))
        body["max_length"] = self._random.randint(1, self._arguments.max_tokens)
        streams = self._random.random() < 0.7
        body |= {"stream": streams, "temperature": self._random.choice([0.0, 0.7, 1.2])}
        drops = streams and self._random.random() < 0.2
        await self._ask("drop" if drops else "generate", "/generate", body, drops=drops)

    def _body(self, num_words: int) -> dict[str, object]:
        return {
            "prompt": " ".join(self._random.choices(WORDS, k=num_words)),
            "max_length": self._arguments.max_tokens,
            "model_id": self._model(),
        }

    async def _ask(self, what: str, path: str, body: object, *, drops: bool = False) -> None:
        async with self._session.post(path, json=body) as response:
            self.seen[f"{what} {response.status}"] += 1
            if drops:
                await response.content.readany()
                return
            text = await response.text()
            whole = response.content_type == "application/json" or text.endswith("data: [DONE]\n\n")
            # 400: the named or current model was just unloaded; 429: the queue is full
            expected = {200, 429, 400} if self._arguments.manage else {200, 429}
            if response.status not in expected or not whole:
                self.unexpected.append(f"{what} {response.status} {text[-200:]}")

    def _model(self) -> str:
        return self._random.choice(self.models)


def run(arguments: argparse.Namespace) -> None:
    """Drive the clients; print what they saw and how memory grew, then the same as a JSON line."""
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
        seen: list[ResidentMemory] = []
        if arguments.manage:  # compare the memory of two moments without a loaded model
            await _drive(soak, arguments.warm_up, server, [])
            await soak.unload_all()
            start = resident_memory(server)
            await _drive(soak, arguments.seconds, server, seen)
            await soak.unload_all()
            end = resident_memory(server)
        else:
            await soak.reach_peak()
            await _drive(soak, arguments.warm_up, server, seen)
            start = _mean(seen[-LAST:])
            seen.clear()
            await _drive(soak, arguments.seconds - arguments.warm_up, server, seen)
            end = _mean(seen[-LAST:])
    result = {
        "seconds": arguments.seconds,
        "all_mb": [round(m.all_mb, 1) for m in (start, end)],
        "caches_mb": [round(m.caches_mb, 1) for m in (start, end)],
        "rest_mb": [round(m.rest_mb, 1) for m in (start, end)],
        "ratio": round(end.all_mb / start.all_mb, 4),
        "highest_mb": round(max(m.all_mb for m in seen), 1),
        "slope_mb_per_hour": round(_slope(seen) * 3600, 2),
        "seen": dict(sorted(soak.seen.items())),
        "unexpected": soak.unexpected[:20],
    }
    for key, value in result.items():
        print(f"{key}: {value}")
    print(json.dumps(result))


async def _drive(
    soak: Soak, seconds: float, server: psutil.Process, seen: list[ResidentMemory]
) -> None:
    until_s = time.monotonic() + seconds
    clients = asyncio.gather(*(soak.client(until_s) for _ in range(soak.num_clients)))
    while not clients.done():
        seen.append(resident_memory(server))
        await asyncio.wait([clients], timeout=SAMPLE_S)
    await clients


def find_server(port: int) -> psutil.Process:
    """The largest process by memory among those that listen on a port and their children.

    Raises:
        LookupError: nothing listens there, or another user's process does.
    """
    listening = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr.port == port
    }
    found = [psutil.Process(pid) for pid in listening if pid is not None]
    if not found:
        raise LookupError(f"no process that this user can see listens on port {port}")
    family = [*found, *(child for process in found for child in process.children(recursive=True))]
    return max(family, key=lambda process: process.memory_info().rss)


def resident_memory(server: psutil.Process) -> ResidentMemory:
    """Read a process's resident memory, its caches apart."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    parts = (int(values[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "RssShmem"))
    return ResidentMemory(time.monotonic(), *parts)


def _mean(seen: list[ResidentMemory]) -> ResidentMemory:
    """The mean of several moments: memory varies with what is being generated."""
    return ResidentMemory(
        seen[-1].at_s,
        statistics.fmean(m.all_mb for m in seen),
        statistics.fmean(m.caches_mb for m in seen),
    )


def _slope(seen: list[ResidentMemory]) -> float:
    """Megabytes per second, by least squares."""
    return statistics.linear_regression([m.at_s for m in seen], [m.all_mb for m in seen]).slope
