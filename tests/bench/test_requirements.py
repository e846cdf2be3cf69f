"""What the parts of bench/ import is in the extras that bench/README.md names."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.__main__ import PARTS

ROOT = Path(__file__).parents[2]
OURS = {"app", "bench", "export"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def distributions(requirements: list[str]) -> set[str]:
    """`sqlalchemy[asyncio]>=2.1` → `sqlalchemy`."""
    names = (requirement.partition(">")[0].partition("=")[0] for requirement in requirements)
    return {name.partition("[")[0].partition("<")[0].strip() for name in names}


def test_every_import_outside_the_peers_environments_is_required_somewhere() -> None:
    extras = PROJECT["optional-dependencies"]
    named = [PROJECT["dependencies"], *(extras[n] for n in ("cpu", "export-tools", "bench"))]
    allowed = {name.replace("-", "_") for group in named for name in distributions(group)}
    found = set()
    for path in (ROOT / "bench").rglob("*.py"):
        if "programs" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    assert "aiohttp" in found, "else this looks in the wrong place"
    assert found - sys.stdlib_module_names - OURS <= allowed


@pytest.mark.parametrize("part", ["decode", "reuse", "peers"])
def test_what_needs_no_extra_of_bench_runs_without_it(part: str) -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = sys.modules['matplotlib'] = None\n"
        f"from bench.__main__ import main; main([{part!r}, '--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert PARTS[part][1] in " ".join(done.stdout.split())
