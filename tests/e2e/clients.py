"""Clients of others that don't fit into the tests' own environment: each gets its own, made once.

They lie in `.venv/clients`, which git ignores and `make clean` removes, or in the folder that
`CLIENTS_DIR` names. One that can't be installed (no network, no Node) skips its tests with the
reason.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.e2e.server import ROOT

ENVIRONMENTS = Path(os.environ.get("CLIENTS_DIR") or ROOT / ".venv" / "clients")
PROGRAMS = Path(__file__).parent / "programs"
INSTALL_TIMEOUT_S = 900


def python_environment(name: str, *requirements: str, heavy: bool = False) -> Path:
    """The `bin` folder of an environment with these packages; a heavy one isn't made unasked."""
    folder = ENVIRONMENTS / name
    _ask_for_heavy(name, requirements, heavy=heavy)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python"]
    _make(
        folder,
        requirements,
        [sys.executable, "-m", "venv", "--without-pip", "--clear", str(folder)],
        # --no-compile: most of what comes along is never imported
        [*pip, str(folder / "bin/python"), "install", "--quiet", "--no-compile", *requirements],
    )
    return folder / "bin"


def node_environment(name: str, *packages: str, heavy: bool = False) -> Path:
    """A folder from which Node finds these packages; a heavy one isn't made unasked."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no Node")
    folder = ENVIRONMENTS / name
    _ask_for_heavy(name, packages, heavy=heavy)
    npm = ["npm", "install", "--loglevel", "error", "--no-save", "--no-package-lock"]
    _make(folder, packages, [*npm, "--prefix", str(folder), *packages])
    return folder


def run(
    *command: object,
    environment: dict[str, str] | None = None,
    timeout_s: float = 600,
    folder: Path | None = None,
) -> str:
    """What a client's command prints. It gets no variable that would lead it elsewhere."""
    theirs = (
        *("ANTHROPIC_", "CLAUDE_", "HF_", "LANGCHAIN_", "LANGSMITH_", "LITELLM_", "LLM_"),
        *("OLLAMA_", "OPENAI_"),
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    done = subprocess.run(
        [str(part) for part in command],
        env=kept | (environment or {}),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def _ask_for_heavy(name: str, packages: tuple[str, ...], *, heavy: bool) -> None:
    if heavy and not _is_made(ENVIRONMENTS / name, packages) and "ALL_CLIENTS" not in os.environ:
        pytest.skip(f"{name} is large: ALL_CLIENTS=1 installs it, once")


def _is_made(folder: Path, packages: tuple[str, ...]) -> bool:
    made = folder / "made.txt"
    return made.is_file() and made.read_text() == "\n".join(packages)


def _make(folder: Path, packages: tuple[str, ...], *commands: list[str]) -> None:
    """Make an environment, or wait until another process of the tests has made it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not _is_made(folder, packages):
            _install(folder, packages, *commands)


def _install(folder: Path, packages: tuple[str, ...], *commands: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "made.txt").unlink(missing_ok=True)
    for command in commands:
        try:
            subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=True
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"{', '.join(packages)}: not installed in {INSTALL_TIMEOUT_S} s")
        except subprocess.CalledProcessError as error:
            said = error.stderr.splitlines()
            why = next((line for line in said if "error" in line.lower()), str(error))
            pytest.skip(f"{', '.join(packages)} can't be installed: {why}")
    (folder / "made.txt").write_text("\n".join(packages))
