"""Put the same load on our server, on llama.cpp's, and on our engine without HTTP.

All have 16 slots, the same number of threads, no prompt cache and the same sampling; clients,
prompts and figures are those of `bench.load`, and only the format of the requests differs. They
take turns: a server that is not under load is stopped by a signal.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from tokenizers import Tokenizer

from app.engine.sequence import EngineRequest
from app.engine.thread import EngineThread
from app.manifest import Tokens, read_manifest
from app.runtime.ort_decoder import OrtDecoder
from bench.decode import SAMPLING
from bench.load import Client, LocalLabClient, Stream

ROOT = Path(__file__).resolve().parents[2]
SLOTS = 16
PROMPT_TOKENS, MAX_TOKENS = 110, 64
CONTEXT = 512
STREAMS = (1, SLOTS)
START_S = 120.0
SEED = 0
Row = dict[str, Any]
MakeClient = Callable[[aiohttp.ClientSession, str, Tokenizer, int], Client]


class LlamaClient(Client):
    """Speaks llama-server's `POST /completion`, at LocalLab's sampling defaults."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, tokenizer: Tokenizer, seed: int
    ) -> None:
        super().__init__(tokenizer, seed)
        self._session, self._url = session, url

    async def stream(self, prompt: str, max_tokens: int, stream: Stream) -> None:
        """Generate once; pieces are appended to `stream` as they arrive."""
        body = {"prompt": prompt, "stream": True, "n_predict": max_tokens, "seed": 0}
        body |= {"temperature": 0.7, "top_p": 0.9, "top_k": 80, "min_p": 0.0}
        body |= {"repeat_penalty": 1.15, "repeat_last_n": CONTEXT, "cache_prompt": False}
        stream.started_s = time.monotonic()
        async with self._session.post(f"{self._url}/completion", json=body) as response:
            response.raise_for_status()
            async for raw in response.content:
                line = raw.decode().strip()
                if not line.startswith("data:"):
                    continue
                event = json.loads(line.removeprefix("data:"))
                if event["content"]:
                    stream.pieces.append((time.monotonic(), event["content"]))
                if event["stop"]:
                    return
        raise RuntimeError(f"the stream ended without stop after {len(stream.pieces)} pieces")


class EngineClient(Client):
    """Passes the same requests to an engine in this process, as tokens."""

    def __init__(self, engine: EngineThread, tokens: Tokens, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer, SEED)
        self._engine, self._stop_ids = engine, frozenset(tokens.eos_ids)

    async def stream(self, prompt: str, max_tokens: int, stream: Stream) -> None:
        """Generate once; `stream` gets an empty piece per token."""
        ids = self._tokenizer.encode(prompt, add_special_tokens=False).ids
        stream.started_s = time.monotonic()
        with self._engine.reserve() as places:
            events = places.submit(
                EngineRequest(
                    prompt_ids=ids,
                    max_tokens=max_tokens,
                    sampling=SAMPLING,
                    stop_ids=self._stop_ids,
                )
            )
        while True:
            for event in await events.next():
                if event.error is not None:
                    raise event.error
                stream.pieces.append((time.monotonic(), ""))
                if event.finish_reason is not None:
                    return

    def count(self, stream: Stream) -> int:
        """The number of tokens in a stream: it has one piece per token."""
        return len(stream.pieces)


def http_load(
    models: list[Path], llama_server: Path | None, gguf: Path, threads: int, rounds: int
) -> list[Row]:
    """Start all servers, put load on each in turn, and return a row per server and stream count."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {
            label(model): stack.enter_context(_our_server(model, folder, threads))
            for model in models
        }
        if llama_server is None:
            rows: list[Row] = [{"server": "llama-server", "cannot": "no binary"}]
        else:
            rows = []
            servers["llama-server"] = stack.enter_context(
                _llama_server(llama_server, gguf, folder, threads)
            )
        tokenizer = Tokenizer.from_file(str(models[0] / "tokenizer.json"))
        manifest = read_manifest(models[0])
        decoder = OrtDecoder(
            models[0], manifest, slots=SLOTS, capacity=CONTEXT, intra_op_threads=threads
        )
        return asyncio.run(_load(servers, decoder, manifest.tokens, tokenizer, rounds)) + rows


def label(model: Path) -> str:
    """The label of one of our models in tables."""
    return f"ours {read_manifest(model).quantisation.scheme}"


async def _load(
    servers: dict[str, "_Server"],
    decoder: OrtDecoder,
    tokens: Tokens,
    tokenizer: Tokenizer,
    rounds: int,
) -> list[Row]:
    cells: dict[tuple[str, int], tuple[list[float], list[Stream]]] = {}
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
    engine = EngineThread(decoder, max_waiting=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        # Every client makes the same sequence of prompts and never repeats one.
        clients: dict[str, Client] = {
            name: s.client(session, s.url, tokenizer, SEED) for name, s in servers.items()
        }
        clients["the first without HTTP"] = EngineClient(engine, tokens, tokenizer)
        for _ in range(rounds):
            for count in STREAMS:
                for name, client in clients.items():
                    server = servers.get(name)
                    if server is not None:
                        server.resume()
                    await client.stream(client.prompt(8), 4, Stream())  # warm up
                    rates, streams = cells.setdefault((name, count), ([], []))
                    batch = [Stream() for _ in range(count)]
                    start = time.monotonic()
                    await asyncio.gather(
                        *(
                            client.stream(client.prompt(PROMPT_TOKENS), MAX_TOKENS, stream)
                            for stream in batch
                        )
                    )
                    rates.append(sum(map(client.count, batch)) / (time.monotonic() - start))
                    streams += batch
                    if server is not None:
                        server.pause()
    await engine.stop(0)
    return [
        {
            "server": name,
            "streams": count,
            "tokens_per_s": statistics.median(rates),
            "ttft_ms": statistics.median(s.ttft_s for s in streams if s.pieces) * 1e3,
            "itl_ms": statistics.median(gap for s in streams for gap in s.gaps_s) * 1e3,
        }
        for (name, count), (rates, streams) in cells.items()
    ]


@dataclass(frozen=True)
class _Server:
    """A running server, which leads a process group of its own."""

    client: MakeClient
    url: str
    process_group: int

    def resume(self) -> None:
        os.killpg(self.process_group, signal.SIGCONT)

    def pause(self) -> None:
        os.killpg(self.process_group, signal.SIGSTOP)


@contextlib.contextmanager
def _our_server(model: Path, folder: Path, threads: int) -> Iterator[_Server]:
    port = _free_port()
    granian = Path(sys.executable).with_name("granian")
    settings = {
        "MODELS_DIR": model.resolve().parent,
        "MODEL": read_manifest(model).model_id,
        "DATA_DIR": folder / model.name,
        "SLOTS": SLOTS,
        "CONTEXT_LENGTH": CONTEXT,
        "INTRA_OP_THREADS": threads,
        "RATE_LIMIT_PER_MINUTE": 0,
        "RATE_LIMIT_BURST": 0,
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLMHOST_")}
    environment |= {f"LLMHOST_{name}": str(value) for name, value in settings.items()}
    command = [str(granian), "--port", str(port), "app:app"]
    with _started(
        LocalLabClient, command, port, folder / f"{model.name}.log", environment
    ) as server:
        yield server


@contextlib.contextmanager
def _llama_server(binary: Path, gguf: Path, folder: Path, threads: int) -> Iterator[_Server]:
    port = _free_port()
    command = [str(binary), "--model", str(gguf), "--port", str(port), "--parallel", str(SLOTS)]
    command += ["--ctx-size", str(SLOTS * CONTEXT), "--threads", str(threads)]
    command += ["--threads-batch", str(threads), "--flash-attn", "on", "--cache-ram", "0"]
    log = folder / "llama-server.log"
    with _started(LlamaClient, command, port, log, dict(os.environ)) as server:
        yield server


@contextlib.contextmanager
def _started(
    client: MakeClient,
    command: list[str],
    port: int,
    log: Path,
    environment: dict[str, str],
) -> Iterator[_Server]:
    """Start a server, wait until it answers, pause it, and end it after the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = _Server(client, f"http://127.0.0.1:{port}", process.pid)
    try:
        give_up = time.monotonic() + START_S
        while not _healthy(server.url):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        server.pause()
        yield server
    finally:
        if process.poll() is None:
            server.resume()
            # if the main thread is still stopped, another one takes the signal and can't wake it
            time.sleep(0.5)
            process.terminate()
            process.wait(60)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
