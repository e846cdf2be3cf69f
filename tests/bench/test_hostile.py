"""The fuzzer and the attack, in small, against a real server: that they run and what they find.

How much faster or slower others are served meanwhile is for the benchmarks themselves to say.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.manifest import folder_name
from export.source import DEFAULT_MODEL_ID

FOLDER = Path("models") / folder_name(DEFAULT_MODEL_ID)
pytestmark = pytest.mark.skipif(
    not (FOLDER / "manifest.json").is_file(), reason="the default model is not exported"
)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # our own interpreter
        [sys.executable, "-m", "bench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("seed", ["a", "b"])
def test_mutated_requests_bring_no_fault_of_the_server_to_light(seed: str) -> None:
    ran = bench("fuzz", "--minutes", "0.15", "--per-minute", "4000", "--seed", seed)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "0 faults, 0 lines in the log, the server lives: held" in ran.stdout


def test_an_attack_disturbs_no_honest_client_and_its_figures_are_kept(tmp_path: Path) -> None:
    shapes = ("slow bodies", "hang-ups", "swaps that go away")
    brief = ("--seconds", "2", "--pause", "1", "--calm", "2", "--out", str(tmp_path / "attack"))
    ran = bench("attack", "--only", *shapes, *brief)
    assert "0 errors of the honest ones (0): held" in ran.stdout, ran.stdout + ran.stderr
    kept = json.loads((tmp_path / "attack.json").read_text())
    assert [row["name"] for row in kept["shapes"]] == list(shapes)
    assert all(row["gap_p99_ms"] > 0 for row in kept["shapes"])
    assert kept["end_s"] is not None, "the server ended at SIGTERM"
    assert "slow bodies" in (tmp_path / "attack.md").read_text()
