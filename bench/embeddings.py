"""Measure embeddings: ours beside sentence-transformers, and 10,000 texts beside text streams.

The first part runs the server's own service without HTTP, tokenizer included, in rounds in turn
with the peer, which has the same weights, texts and threads. The second starts a server, measures
gaps between the pieces of running text streams when nothing else runs, then again while texts of
mixed lengths are embedded in one request after the other, and the memory that this takes.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil

from app.catalog.catalog import Catalog
from app.contract.embedding import EmbeddingRequest
from app.embedding.service import EmbeddingService
from app.settings import Settings
from bench.load import WORDS
from bench.server import running

PROGRAM = Path(__file__).parent / "peers/programs/sentence_transformers_embeddings.py"
LONGEST_WORDS = 180


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m bench embeddings`."""
    parser.add_argument("--models-dir", type=Path, default=Path("models"))
    parser.add_argument("--models", nargs="+", required=True, help="ids of embedding models")
    parser.add_argument("--peer", type=Path, help="a Python that has sentence-transformers")
    parser.add_argument("--source", type=Path, help="the folder that the models come from")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--beside", type=int, default=0, help="texts to embed beside streams")
    parser.add_argument("--per-request", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the calm part")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    if arguments.peer is not None:
        asyncio.run(compare(arguments))
    if arguments.beside:
        asyncio.run(beside(arguments))


def mixed_texts(count: int, seed: int = 1) -> list[str]:
    """Texts of 1 to `LONGEST_WORDS` words, most of them short."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    lengths = (1 + int(LONGEST_WORDS * draw.random() ** 2) for _ in range(count))
    return [" ".join(draw.choices(WORDS, k=length)) for length in lengths]


async def compare(arguments: argparse.Namespace) -> None:
    """Ours and the peer in turn; ratios of medians."""
    texts = mixed_texts(arguments.texts)
    command = [str(arguments.peer), str(PROGRAM)]
    peer = subprocess.Popen(  # noqa: ASYNC220, S603 - measured one after the other
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    told = {"folder": str(arguments.source), "threads": arguments.threads, "texts": texts}
    peer.stdin.write(json.dumps(told) + "\n")
    peer.stdin.flush()
    reference = np.array(json.loads(peer.stdout.readline()), np.float32)
    settings = Settings(
        models_dir=arguments.models_dir,
        encoder_threads=arguments.threads,
        max_loaded_encoders=len(arguments.models),
    )
    catalog = Catalog(settings)
    service = EmbeddingService(catalog)
    seconds: dict[str, list[list[float]]] = {name: [] for name in ("peer", *arguments.models)}
    for model_id in arguments.models:
        made = await service.embed(EmbeddingRequest(inputs=texts, truncate=True), model_id)
        found = np.array([list(vector) for vector in made.vectors], np.float32)
        cosines = (found * reference).sum(1) / (
            np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
        )
        print(
            f"{model_id}: largest difference {np.abs(found - reference).max():.2g}, cosine "
            f"{cosines.mean():.6f}, at least {cosines.min():.6f}; {made.prompt_tokens} tokens"
        )
    for _ in range(arguments.rounds):
        peer.stdin.write("go\n")
        peer.stdin.flush()
        seconds["peer"].append(json.loads(peer.stdout.readline()))
        for model_id in arguments.models:
            started_s, started_cpu_s = time.perf_counter(), time.process_time()
            await service.embed(EmbeddingRequest(inputs=texts, truncate=True), model_id)
            took = [time.perf_counter() - started_s, time.process_time() - started_cpu_s]
            seconds[model_id].append(took)
    peer.stdin.close()
    peer.wait()
    await catalog.close()
    base, base_cpu = _medians(seconds["peer"])
    for name, times in seconds.items():
        wall, cpu = _medians(times)
        print(
            f"{name:<32} {len(texts) / wall:7.0f} texts/s, {base / wall:5.2f} × the peer; "
            f"{cpu:6.2f} s of processors, {base_cpu / cpu:5.2f} × fewer"
        )


def _medians(times: list[list[float]]) -> tuple[float, float]:
    """Seconds, and seconds of processors: on a busy machine those alone say something."""
    return statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)


async def beside(arguments: argparse.Namespace) -> None:
    """Streams alone, then beside texts: gaps, memory, texts per second."""
    model_id = arguments.models[0]
    texts = mixed_texts(arguments.beside, seed=2)
    limits = {"rate_limit_per_minute": 0, "rate_limit_burst": 0}
    chosen = {"models_dir": arguments.models_dir.resolve(), **limits}
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), **chosen) as server:
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(server.url, timeout=timeout) as session:
            await embed(session, model_id, texts[:8])  # loads it
            calm = await streamed(session, arguments.streams, asyncio.sleep(arguments.seconds))
            before, most = resident(server.process.pid), [0]

            async def all_texts() -> None:
                for start in range(0, len(texts), arguments.per_request):
                    await embed(session, model_id, texts[start : start + arguments.per_request])
                    most[0] = max(most[0], resident(server.process.pid))

            started_s = time.perf_counter()
            busy = await streamed(session, arguments.streams, all_texts())
            took_s = time.perf_counter() - started_s
    for name, gaps in (("calm", calm), ("beside", busy)):
        p50, p99 = (1000 * float(np.percentile(gaps, p)) for p in (50, 99))
        print(f"{name:<8} gaps: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(gaps)} of them")
    ratio = np.percentile(busy, 99) / np.percentile(calm, 99)
    print(f"p99 {ratio:.2f} × calm; {len(texts)} texts in {took_s:.1f} s, "
          f"{len(texts) / took_s:.0f} per second")  # fmt: skip
    print(f"memory {before / 1e6:.0f} MB before, at most {most[0] / 1e6:.0f} MB")


def resident(pid: int) -> int:
    """Bytes of a process and its children."""
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


async def embed(session: aiohttp.ClientSession, model_id: str, texts: list[str]) -> None:
    """Embed some texts over HTTP, as OpenAI's client asks for it."""
    texts = [" ".join(text.split()[:120]) for text in texts]
    body = {"model": model_id, "input": texts, "encoding_format": "base64"}
    async with session.post("/v1/embeddings", json=body) as answer:
        read = await answer.json()
        assert answer.status == 200, read
        assert len(read["data"]) == len(texts)


async def streamed(session: aiohttp.ClientSession, count: int, work: Any) -> list[float]:
    """Gaps between pieces of streams that run, one after the other, while some work does."""
    gaps: list[float] = []

    async def stream() -> None:
        while True:
            draw = random.Random()  # noqa: S311 - no secret
            body = {
                "prompt": " ".join(draw.choices(WORDS, k=24)),
                "max_length": 200,
                "temperature": 0,
                "stream": True,
            }
            times = []
            accepts = {"Accept": "text/event-stream"}
            async with session.post("/generate", json=body, headers=accepts) as answer:
                assert answer.status == 200, await answer.text()
                async for line in answer.content:
                    if not line.strip():
                        continue
                    times.append(time.perf_counter())
            gaps.extend(after - before for before, after in pairwise(times))

    streams = [asyncio.create_task(stream()) for _ in range(count)]
    await work
    for task in streams:
        task.cancel()
    ended = await asyncio.gather(*streams, return_exceptions=True)
    failed = [one for one in ended if not isinstance(one, asyncio.CancelledError)]
    assert not failed, failed
    return gaps
