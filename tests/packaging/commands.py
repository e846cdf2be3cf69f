"""How the tests of the package start what they test."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "export")
STEP_TIMEOUT_S = 600


def clean_environment() -> dict[str, str]:
    """The environment without settings of whoever runs the tests."""
    theirs = ("LLMHOST_", "PYTHON", "PIP_", "OTEL_")
    return {k: v for k, v in os.environ.items() if not k.startswith(theirs)}


def run(*command: object, folder: Path) -> str:
    """What a command prints, started in a folder and in a clean environment."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=STEP_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
