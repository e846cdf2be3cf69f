"""The published documents, which lie beside the checkout; nothing of them is copied in here."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "contracts" / "source"


def document(name: str) -> str:
    """The text of a document, or a skipped test where the documents are not there."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"the published documents are not at {FOLDER}")
    return path.read_text()


def section(text: str, first: str, after: str) -> str:
    """From the line that begins with `first` to the one before `after`, without the indent."""
    start = text.index(first)
    start = text.rindex("\n", 0, start) + 1
    return textwrap.dedent(text[start : text.index(after, start)])


def curl_lines(text: str) -> list[str]:
    """Every curl command, over as many lines as its backslashes and quotes take."""
    commands: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        if line.lstrip().startswith("curl "):
            command = line.strip()
            while command.endswith("\\") or command.count("'") % 2:
                command += f"\n{next(lines)}"
            commands.append(command)
    return commands


def run_python(program: str, folder: Path) -> str:
    """Run a program from a document; returns what it prints."""
    file = folder / "program.py"
    file.write_text(program)
    return _run([sys.executable, "-W", "ignore::DeprecationWarning", str(file)])


def run_shell(command: str) -> str:
    """Run a command from a document; returns what it prints."""
    return _run(["bash", "-c", command])


def run_node(program: str, folder: Path) -> str:
    """Run a program from a document in Node; returns what it prints."""
    file = folder / "program.mjs"
    file.write_text(program)
    return _run(["node", str(file)])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
