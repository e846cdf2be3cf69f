"""constraints.txt pins what pyproject.toml asks for, to versions and to nothing else."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LINES = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
]
GPU = ("gpu", "export-gpu")
"""Installed in place of cpu and export; no machine that makes the file has had one."""


def requirements() -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for group in (project["dependencies"], *(extras[name] for name in extras.keys() - set(GPU))):
        yield from (Requirement(line) for line in group if not line.startswith(project["name"]))


def test_each_line_is_a_name_and_one_public_version() -> None:
    # no address of an index, no build of one machine (torch==2.13.0+cpu)
    assert not [line for line in LINES if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    pinned = {canonicalize_name(name): version for name, version in (s.split("==") for s in LINES)}
    assert not {
        f"{requirement}: {pinned.get(canonicalize_name(requirement.name), 'not pinned')}"
        for requirement in requirements()
        if pinned.get(canonicalize_name(requirement.name), "") not in requirement.specifier
    }
