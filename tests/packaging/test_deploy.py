"""The files of deploy/ and the Containerfile name what there is."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from app.settings import PREFIX, Settings
from tests.packaging.commands import ROOT

DEPLOY = ROOT / "deploy"
FILES = [path for path in DEPLOY.rglob("*") if path.is_file()]
VARIABLE = re.compile(rf"\b{PREFIX}[A-Z0-9_]+")
EXTRAS = re.compile(r"(?:llmhost|\$\{wheel\})\[([^\]]+)\]")


def test_every_setting_that_a_file_names_is_one() -> None:
    known = {PREFIX + field.upper() for field in Settings.__struct_fields__}
    named = {name for path in FILES for name in VARIABLE.findall(path.read_text())}
    assert len(named) > 5, "else this looks in the wrong place"
    assert named <= known


def test_every_extra_that_a_file_installs_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [path.read_text() for path in (*FILES, ROOT / "Containerfile")]
    found = {
        extra for text in texts for group in EXTRAS.findall(text) for extra in group.split(",")
    }
    assert {"cpu", "export", "postgres"} <= found, "else this looks in the wrong place"
    assert found - {"${DEVICE}"} <= project["optional-dependencies"].keys()


def test_the_chart_is_of_the_version_that_the_package_has() -> None:
    chart = yaml.safe_load((DEPLOY / "helm" / "llmhost" / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (chart["version"], chart["appVersion"]) == (project["version"],) * 2


def test_the_image_is_made_of_what_it_copies_and_nothing_of_it_is_ignored() -> None:
    lines = (ROOT / "Containerfile").read_text().splitlines()
    copied = {
        source
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    assert {"app", "export", "constraints.txt"} <= copied
    assert not {name for name in copied if not (ROOT / name).exists()}
    assert {f"!{name}" for name in copied} == {line for line in ignored if line.startswith("!")}


def test_systemd_takes_the_unit_and_finds_little_to_expose(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("there is no systemd-analyze")
    text = (DEPLOY / "llmhost.service").read_text()
    unit = tmp_path / "llmhost.service"
    # a program that is there: whether ours is depends on the machine
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    verify = subprocess.run(
        [program, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (verify.returncode, verify.stdout, verify.stderr) == (0, "", "")
    security = subprocess.run(
        [program, "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert security.returncode == 0, security.stdout  # an exposure of at most 2.0 of 10
