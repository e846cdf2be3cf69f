"""Send mutated requests to every endpoint of a server, and print each one that it fails at.

Starts the server itself, on loopback, with a short context so that no generation takes long. The
requests are made from the server's own OpenAPI document and from bodies written by hand, and each
has a number: `--seed SEED --only NUMBER` sends it again to a new server.
"""

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from app.manifest import read_manifest
from bench.fuzz.accounts import Accounts, bearer
from bench.fuzz.cases import Case, Cases
from bench.fuzz.client import Client, Tally
from bench.fuzz.judge import Judge, broken_lines
from bench.fuzz.operations import Examples, read_envelopes, read_operations
from bench.load import DEFAULT_TOKENIZER
from bench.server import ROOT, Server, lend, running

CLIENTS: Final = 64
LOOK_EVERY_S: Final = 3.0
LOOK_S: Final = 60.0
SETTINGS: Final = {
    "context_length": 256,
    "default_max_tokens": 2,
    "slots": 8,
    # few generations at once, so that few clients wait for one and the rest go on
    "max_waiting": 16,
    # the other cores are for those who send
    "intra_op_threads": 1,
    "rate_limit_per_minute": 0,
    "rate_limit_burst": 0,
    "login_attempts_per_account": 0,
    "login_attempts_per_address": 0,
    "login_attempts_from_new_addresses": 0,
    "registrations_per_address": 0,
    # as little as argon2 takes: hashing is not what is tried here
    "argon2_memory_kib": 8,
    "argon2_time_cost": 1,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m bench fuzz`."""
    parser.add_argument("--model", type=Path, default=DEFAULT_TOKENIZER.parent)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--per-minute", type=int, default=20_000)
    parser.add_argument("--seed", default="1", help="what the requests depend on, and nothing else")
    parser.add_argument(
        "--only", type=int, nargs="+", help="send the requests of these numbers, one by one"
    )


def run(arguments: argparse.Namespace) -> None:
    """Send; print the requests at which the server failed and a summary; exit with 1 if any."""
    with tempfile.TemporaryDirectory() as name, _server(arguments.model, Path(name)) as server:
        held = asyncio.run(fuzz(arguments, server, name))
    sys.exit(0 if held else 1)


def _server(model: Path, folder: Path) -> Any:
    model_id = read_manifest(model).model_id
    # in a folder of its own: among the operations are those that delete and copy models
    lend(model, folder / "models" / model.name)
    return running(folder, models_dir=folder / "models", model=model_id, **SETTINGS)


async def fuzz(arguments: argparse.Namespace, server: Server, folder: str) -> bool:
    """Fuzz a running server; whether nothing was found."""
    session = aiohttp.ClientSession(
        server.url,
        timeout=aiohttp.ClientTimeout(total=LOOK_S),
        connector=aiohttp.TCPConnector(force_close=True),
    )
    async with session:
        async with session.get("/schema/openapi.json") as response:
            document = await response.json(content_type=None)
        async with session.get("/health") as response:
            model = (await response.json())["model"]
        operations = read_operations(document)
        paths = (folder, str(ROOT), sys.prefix, str(arguments.model.resolve().parent))
        judge = Judge(operations, read_envelopes(operations), paths)
        cases = Cases(arguments.seed, operations, Examples(document, model), model)
        fuzzer = Fuzzer(server, session, cases, judge)
        await fuzzer.accounts.renew()
        if arguments.only:
            await fuzzer.replay(arguments.only)
        else:
            await fuzzer.all(arguments.minutes, arguments.per_minute)
    return fuzzer.summary()


class Fuzzer:
    """One run against one server."""

    def __init__(
        self, server: Server, session: aiohttp.ClientSession, cases: Cases, judge: Judge
    ) -> None:
        self._server, self._session = server, session
        self._cases, self._judge = cases, judge
        self.accounts = Accounts(session)
        self._tally = Tally()
        self._dead = False
        self._looks = 0
        self._seconds = 0.0

    async def all(self, minutes: float, per_minute: int) -> None:
        """Send requests until the time is up or the server dead, looking after it meanwhile."""
        started_s = time.monotonic()
        until_s = started_s + 60 * minutes
        # a number, and when it is due
        plan = (
            (number, started_s + 60 * number / per_minute)
            for number in range(round(per_minute * minutes))
        )
        clients = [asyncio.create_task(self._send_all(plan, until_s)) for _ in range(CLIENTS)]
        sending = asyncio.gather(*clients)
        while not sending.done() and not self._dead:
            await asyncio.wait([sending], timeout=LOOK_EVERY_S)
            await self._look()
        if self._dead:
            sending.cancel()
        await asyncio.gather(sending, return_exceptions=self._dead)
        self._seconds = time.monotonic() - started_s

    async def replay(self, numbers: list[int]) -> None:
        """Send some requests one by one, and show them and what comes back."""
        client = self._client()
        for number in numbers:
            case = self._cases.make(number)
            print(f"--- {number}, {case.operation}")
            print(case.encoded({}).decode("utf-8", "backslashreplace")[:4_000])
            answer = await client.send(case)
            if answer is not None:
                print(f"--- {answer.status} {answer.headers}")
                print(answer.body.decode("utf-8", "backslashreplace")[:4_000])
            await self._look()
        client.close()

    def summary(self) -> bool:
        """Print what came of it; whether nothing was found."""
        tally = self._tally
        sent = sum(tally.statuses.values())
        lines = broken_lines(self._server.log.read_text(errors="replace"))
        for line in lines[:20]:
            print(f"in the log: {line[:300]}")
        if self._seconds:
            print(f"{sent} requests in {self._seconds:.0f} s, {60 * sent / self._seconds:.0f}/min")
        print(f"looked after the server {self._looks} times")
        print(", ".join(f"{count} {status}" for status, count in sorted(tally.statuses.items())))
        seconds, number = tally.slowest
        print(f"the slowest answer took {seconds:.1f} s: --only {number}")
        held = not (tally.faults or lines or self._dead)
        print(
            f"{len(tally.faults)} faults, {len(lines)} lines in the log, "
            f"the server {'died' if self._dead else 'lives'}: {'held' if held else 'BROKEN'}"
        )
        return held

    async def _send_all(self, plan: Iterator[tuple[int, float]], until_s: float) -> None:
        client = self._client()
        try:
            for number, due_s in plan:
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                if time.monotonic() > until_s:
                    break
                await client.send(self._cases.make(number))
        finally:
            client.close()

    def _client(self) -> Client:
        return Client(
            self._server.port, self._judge, self.accounts.secrets, self._tally, self._tell
        )

    def _tell(self, case: Case, fault: str) -> None:
        print(
            f"{fault} at {case.operation}: "
            f"python -m bench fuzz --seed {self._cases.seed} --only {case.number}",
            flush=True,
        )

    async def _look(self) -> None:
        """Look whether the server is ready and generates; bring back what was ended on purpose."""
        self._looks += 1
        try:
            async with self._session.get("/health/ready") as response:
                answer = await response.json()
            if answer.get("reason") in ("no_model_loaded", "loading"):
                body = {"model_id": self._cases.model}
                async with self._session.post("/models/load", json=body) as response:
                    response.raise_for_status()
            elif answer["status"] != "ready":
                self._die(f"/health/ready says {answer}")
                return
            await self.accounts.renew()
            await self._generate()
        except (aiohttp.ClientError, TimeoutError, RuntimeError) as error:
            self._die(repr(error))

    def _die(self, why: str) -> None:
        self._dead = True
        under_way = " ".join(map(str, sorted(self._tally.under_way)))
        print(f"the server is dead: {why}; under way: --only {under_way}")

    async def _generate(self) -> None:
        # by name: a request of ours may have unloaded it just now
        body = {"prompt": "Hello", "max_length": 2, "raw": True, "model_id": self._cases.model}
        headers = bearer(self.accounts.secrets["key"])
        for _ in itertools.repeat(None, 30):
            async with self._session.post("/generate", json=body, headers=headers) as response:
                if response.status == 200:
                    return
                if response.status != 429:
                    raise RuntimeError(f"/generate: {response.status} {await response.text()}")
            await asyncio.sleep(1)
        raise RuntimeError("/generate: 429 for 30 s")
