"""Runs the blocks of one page in order, in one shell, against a server."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.docs.blocks import ROOT, Block

ADDRESS: Final = re.compile(r"(?:127\.0\.0\.1|localhost):8000\b")
PROGRAMS: Final = {
    "curl": "curl --fail-with-body --silent --show-error",  # a refusal is a failure here
    "granian": f"{Path(sys.executable).with_name('granian')}",
    "llmhost": f"{sys.executable} -m app",
    "python": sys.executable,
}
"""What stands in for the programs that pages call; those of the same name that there are."""


def run_page(blocks: Sequence[Block], folder: Path, url: str, data: Path) -> None:
    """Run blocks of `sh` and `python`; what one sets or writes is there for those after it.

    Args:
        blocks: in the order of the page.
        folder: stands for the checkout that a reader is in.
        url: where a server is, instead of the address that pages name.
        data: that server's data directory.

    Raises:
        AssertionError: a block failed, or printed something else than the page says.
    """
    _prepare(folder, data)
    address = url.removeprefix("http://")
    script = ["set -euo pipefail"]
    for number, block in enumerate(blocks):
        text = ADDRESS.sub(address, block.text)
        if block.language == "python":
            (folder / f"block{number}.py").write_text(text)
            text = f"python block{number}.py\n"
        # in braces and no subshell: variables stay
        script += [f"echo {number} > at", "{", text.rstrip("\n"), f"}} > out{number}"]
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env=os.environ
        | {"PATH": f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}"}
        | {
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            "NO_COLOR": "1",
            "LLMHOST_URL": url,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    at = int((folder / "at").read_text())
    said = (folder / f"out{at}").read_text()
    assert done.returncode == 0, f"{blocks[at].place}\n{blocks[at].text}\n{said}\n{done.stderr}"


def output_of(folder: Path, number: int) -> str:
    """What a block printed."""
    return (folder / f"out{number}").read_text()


def fits(said: str, shown: str) -> bool:
    """Whether what was printed is what a page shows, where … stands for anything."""
    pattern = ".*?".join(re.escape(part.strip()) for part in shown.strip().split("…"))
    return re.fullmatch(rf"\s*{pattern}\s*", said, re.DOTALL) is not None


def _prepare(folder: Path, data: Path) -> None:
    """Make what a checkout has."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, command in PROGRAMS.items():
        program, *arguments = command.split()
        found = shutil.which(program)
        assert found is not None, f"pages call {program}"
        (programs / name).write_text(f'#!/bin/sh\nexec {found} {" ".join(arguments)} "$@"\n')
        (programs / name).chmod(0o755)
    (folder / "models").symlink_to(ROOT / "models")
    (folder / "data").symlink_to(data)
