"""Make the peers' environments and convert the model for each: `python -m bench peers`.

Each environment is a virtual environment below the given folder; what has succeeded is marked and
not repeated. A peer that can't be made is recorded with the reason, and the others continue. What
each is made from is in `recipes`. Knows nothing about measuring.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.peers.recipes import ENVIRONMENTS, PEERS, Environment, Place

ROOT: Final = Path(__file__).resolve().parents[2]


class StepFailed(Exception):
    """A command of a recipe failed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m bench peers`."""
    parser.add_argument(
        "--into", type=Path, required=True, help="the folder to fill, with about 8 GB"
    )
    parser.add_argument("--only", nargs="+", choices=[*ENVIRONMENTS, *PEERS], default=[])


def run(arguments: argparse.Namespace) -> None:
    """Make what is missing; print what was made and what failed."""
    place = Place(arguments.into.resolve())
    place.into.mkdir(parents=True, exist_ok=True)
    only = set(arguments.only) or {*ENVIRONMENTS, *PEERS}
    only |= {PEERS[name].environment for name in only & PEERS.keys()}
    failures = json.loads(place.failures.read_text()) if place.failures.is_file() else {}
    shared = place.shared
    command = [sys.executable, "-m", "bench.peers.source", str(shared.folder)]
    attempt(place, "source", failures, [(command, {})])
    for name, environment in ENVIRONMENTS.items():
        if name in only:
            attempt(place, name, failures, _install(place, name, environment))
    for name, peer in PEERS.items():
        if name in only and peer.convert and peer.environment not in failures:
            program, *rest = (
                part.format(hf=shared.hugging_face, out=place.model(name)) for part in peer.convert
            )
            attempt(
                place, name, failures, [([str(place.bin(peer.environment, program)), *rest], {})]
            )
    for name, reason in failures.items():
        print(f"{name}: failed: {reason}")


Commands = list[tuple[list[str], Mapping[str, str]]]


def _install(place: Place, name: str, environment: Environment) -> Commands:
    pip = [str(place.bin(name)), "-m", "pip", "--quiet"]
    commands: Commands = [
        ([sys.executable, "-m", "venv", str(place.into / name)], {}),
        ([*pip, "install", "--upgrade", "pip"], {}),
        ([*pip, "install", *environment.requirements], environment.variables),
    ]
    if environment.afterwards:
        commands.append(([str(place.bin(name)), *environment.afterwards], {}))
    return commands


def attempt(place: Place, name: str, failures: dict[str, str], commands: Commands) -> None:
    """Run commands unless exactly these have succeeded before; record how it went."""
    mark = place.into / "done" / name
    digest = hashlib.sha256(json.dumps(commands).encode()).hexdigest()
    if mark.is_file() and mark.read_text() == digest:
        print(f"{name}: already made")
        return
    start = time.monotonic()
    failures.pop(name, None)
    try:
        for command, variables in commands:
            _run(command, variables, place.log(name))
    except StepFailed as error:
        failures[name] = str(error)
        print(f"{name}: failed after {time.monotonic() - start:.0f} s: {error}")
    else:
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(digest)
        print(f"{name}: made in {time.monotonic() - start:.0f} s", flush=True)
    place.failures.write_text(json.dumps(failures, indent=2))


def _run(command: list[str], variables: Mapping[str, str], log: Path) -> None:
    with log.open("ab") as file:
        done = subprocess.run(  # noqa: S603
            command,
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
        last = next((line for line in reversed(lines) if line), "no output")
        raise StepFailed(f"{Path(command[0]).name} exited with {done.returncode}: {last[:200]}")
