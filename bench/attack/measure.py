"""Attack a server in many shapes, one after another, and measure how honest clients fare beside it.

Starts the server itself, on loopback, with a copy of the model beside the model; every loop ends
at a time and after a number of attempts. The attackers run in a process of their own with little
priority, as if on another machine; the honest ones each have an account and an address.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import psutil
from tokenizers import Tokenizer

from app.manifest import folder_name, read_manifest, write_manifest
from bench.attack import report
from bench.attack.bodies import CHAT, COMPLETIONS
from bench.attack.shapes import SHAPES, act
from bench.attack.target import Target
from bench.attack.witnesses import Failures, Honest, Poller, honest_client, new_key
from bench.compare import processor
from bench.load import DEFAULT_TOKENIZER
from bench.server import Server, lend, running
from bench.soak import ResidentMemory, find_server, resident_memory

HONEST: Final = 4
ATTACKERS: Final = 24
"""Accounts of attackers, so that no limit for one account alone keeps them off; one more has no
name."""
SAMPLE_S: Final = 0.1
LAST: Final = 30
"""The number of samples taken in three seconds."""
LITTLE_PRIORITY: Final = 5
"""Niceness of the attackers: they take no more than a third of what the server leaves over."""
WARM_UP_WORDS: Final = (1, 1_500)
"""Lengths of the prompts that come first, before `warm_up`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m bench attack`."""
    parser.add_argument("--model", type=Path, default=DEFAULT_TOKENIZER.parent)
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="SHAPE")
    parser.add_argument("--seconds", type=float, default=10, help="of each shape")
    parser.add_argument("--pause", type=float, default=3, help="seconds after each shape")
    parser.add_argument("--calm", type=float, default=20, help="seconds before and after it all")
    parser.add_argument("--addresses", type=int, default=1, help="from which attackers connect")
    parser.add_argument(
        "--unlimited", action="store_true", help="turn the server's limits per minute off"
    )
    parser.add_argument("--out", type=Path, help="write PATH.json and PATH.md as well")


def run(arguments: argparse.Namespace) -> None:
    """Attack, print a line for each shape and the verdict; exit with 1 if a limit was broken."""
    with tempfile.TemporaryDirectory() as name:
        result = asyncio.run(_run(arguments, Path(name)))
    if arguments.out is not None:
        arguments.out.with_suffix(".json").write_text(json.dumps(result, indent=1))
        arguments.out.with_suffix(".md").write_text(report.markdown(result))
    sys.exit(0 if result["held"] else 1)


async def _run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    load_average = os.getloadavg()[0]
    manifest = read_manifest(arguments.model)
    model, other = manifest.model_id, f"{manifest.model_id}-again"
    for name in (model, other):
        lend(arguments.model, folder / "models" / folder_name(name))
    renamed = msgspec.structs.replace(manifest, model_id=other)
    write_manifest(folder / "models" / folder_name(other), renamed)
    settings: dict[str, object] = {"models_dir": folder / "models", "model": model}
    if arguments.unlimited:
        settings |= {"rate_limit_per_minute": 0, "rate_limit_burst": 0}
    with _little_priority() as attackers, running(folder, **settings) as server:
        addresses = tuple(f"127.0.1.{1 + i}" for i in range(arguments.addresses))
        keys = [await new_key(server.url, f"attacker{i}", addresses[0]) for i in range(ATTACKERS)]
        victims = tuple(f"honest{i}" for i in range(HONEST))
        target = Target(server.port, model, other, victims, tuple(keys), addresses)
        tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
        async with _scene(server, target, tokenizer, manifest.graph.context_length) as scene:
            calm = await scene.watch("calm", arguments.calm)
            print(report.line(calm, calm), flush=True)
            before_mb = scene.memory_now_mb
            rows = []
            for shape in arguments.only:
                attack = asyncio.get_running_loop().run_in_executor(
                    attackers, act, target, shape, arguments.seconds
                )
                rows.append(await scene.watch(shape, arguments.seconds + arguments.pause, attack))
                print(report.line(rows[-1], calm), flush=True)
            afterwards = await scene.watch("afterwards", arguments.calm)
            print(report.line(afterwards, calm), flush=True)
            after_mb = scene.memory_now_mb
        end_s = await _end_beside_an_attack(server, attackers, target)
    verdict = report.verdict(calm, rows, before_mb=before_mb, after_mb=after_mb)
    print(f"beside endless bodies, {report.ending(end_s)}")
    print(verdict)
    return {
        "machine": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_before": load_average,
        "honest": HONEST,
        "seconds": arguments.seconds,
        "rate_limit": "none" if arguments.unlimited else "the server's",
        "calm": asdict(calm),
        "shapes": [asdict(row) for row in rows],
        "afterwards": asdict(afterwards),
        "before_mb": before_mb,
        "after_mb": after_mb,
        "end_s": end_s,
        "verdict": str(verdict),
        "held": verdict.held,
    }


@dataclass
class Scene:
    """The honest ones at work, and what is noted of the server meanwhile."""

    honest: list[Honest]
    poller: Poller
    failures: Failures
    memory: list[ResidentMemory] = field(default_factory=list)

    @property
    def memory_now_mb(self) -> float:
        """Resident memory without the caches, the mean of the last seconds."""
        return statistics.fmean(m.rest_mb for m in self.memory[-LAST:])

    async def watch(
        self, name: str, seconds: float, attack: asyncio.Future[dict[str, int]] | None = None
    ) -> report.Row:
        """Let a time pass, one honest client sign in, and an attack end; say how it was."""
        since_s = time.monotonic()
        await asyncio.sleep(seconds / 2)
        signing_in = asyncio.create_task(self.honest[0].sign_in())
        await asyncio.sleep(seconds / 2)
        seen = {} if attack is None else await attack
        until_s = time.monotonic()
        sign_in_s = await signing_in
        return report.row(
            name,
            gaps_s=[gap for one in self.honest for gap in one.gaps_s(since_s, until_s)],
            first_tokens_s=[s for one in self.honest for s in one.first_tokens_s(since_s, until_s)],
            sign_in_s=sign_in_s,
            live_s=self.poller.took_between(since_s, until_s),
            memory=[(m.rest_mb, m.caches_mb) for m in self.memory if m.at_s >= since_s],
            errors=self.failures.between(since_s, time.monotonic()),
            seen=seen,
        )


@contextlib.asynccontextmanager
async def _scene(
    server: Server, target: Target, tokenizer: Tokenizer, context_length: int
) -> AsyncIterator[Scene]:
    """Register the honest ones, warm the server up, and let them begin."""
    failures = Failures()
    process = find_server(server.port)
    async with contextlib.AsyncExitStack() as stack:
        honest = [
            await stack.enter_async_context(honest_client(server.url, i, tokenizer, failures))
            for i in range(HONEST)
        ]
        for words in WARM_UP_WORDS:
            body = {"prompt": "Hello " * min(words, context_length // 8), "max_length": 8}
            async with honest[0].session.post("/generate", json=body) as response:
                response.raise_for_status()
        await _warm_up(honest[0].session, target)
        scene = Scene(honest, Poller(server.port, failures), failures)
        stack.enter_context(scene.poller.polling())
        tasks = [asyncio.create_task(one.stream()) for one in honest]
        tasks.append(asyncio.create_task(_sample(process, scene.memory)))
        try:
            yield scene
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _warm_up(session: aiohttp.ClientSession, target: Target) -> None:
    """Ask for what is made once: it is no growth if an attacker is not the first to want it."""
    prompt = "Hello " * (WARM_UP_WORDS[-1] // 2)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/models/load", {"model_id": target.other_model}),
        ("/models/load", {"model_id": target.model}),
        ("/generate/batch", {"prompts": [f"Hello {i}" for i in range(8)], "max_length": 8}),
        (COMPLETIONS, {"model": target.model, "prompt": prompt, "echo": True, "logprobs": 5}),
        (
            CHAT,
            {
                "model": target.model,
                "messages": [{"role": "user", "content": "Hi"}],
                "max_tokens": 16,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "s", "schema": {"type": "object"}},
                },
            },
        ),
    ]
    for path, body in asked:
        async with session.post(path, json=body) as response:
            response.raise_for_status()
    async with session.get("/schema/openapi.json") as response:
        response.raise_for_status()


async def _sample(process: psutil.Process, memory: list[ResidentMemory]) -> None:
    while True:
        memory.append(resident_memory(process))
        await asyncio.sleep(SAMPLE_S)


async def _end_beside_an_attack(
    server: Server, attackers: ProcessPoolExecutor, target: Target
) -> float | None:
    """Stop the server while bodies that never end are on their way; see `Server.end`."""
    loop = asyncio.get_running_loop()
    attack = loop.run_in_executor(attackers, act, target, "endless bodies", 120.0)
    await asyncio.sleep(2)
    seconds = await asyncio.to_thread(server.end)
    await attack
    return seconds


@contextlib.contextmanager
def _little_priority() -> Iterator[ProcessPoolExecutor]:
    """A process for the attackers."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_be_modest) as pool:
        yield pool


def _be_modest() -> None:
    os.nice(LITTLE_PRIORITY)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
