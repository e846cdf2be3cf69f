"""The wheel holds all that an installed copy needs: it is built, installed and made to work.

The environment it is installed into sees the packages of the one that runs these tests, but not
the checkout: so nothing that only a checkout has can make up for what the wheel lacks.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from app.manifest import read_manifest
from tests.export.tiny import CONFIGS, save_tiny

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "export")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
STEP_TIMEOUT_S = 120
TELL_VERSION = """
from app import app  # what `granian app:app` imports
from app.asgi import create_app
from app.settings import load_settings

print(create_app(load_settings()).openapi_schema.info.version)
"""


def run(*command: object, folder: Path) -> str:
    """What a command prints, started in a folder and without settings of whoever runs the tests."""
    theirs = ("LLMHOST_", "PYTHON", "PIP_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(theirs)}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=STEP_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # built from a copy: setuptools leaves a build/ behind, from which old files would come back
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    run(*pip, *offline, "--wheel-dir", "dist", ".", folder=folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", folder=folder)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, folder=folder)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    # a folder that a .pth file names has its own .pth files passed over: the one by which an
    # editable install leads to the checkout is among them
    (packages / "packages_of_the_tests.pth").write_text(
        f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n"
    )
    for package in PACKAGES:
        where = run(python, "-c", f"import {package}; print({package}.__file__)", folder=folder)
        assert where.startswith(str(packages)), "else these tests prove nothing"
    return python


def test_wheel_has_every_file_of_the_packages_but_their_notes(wheel: Path) -> None:
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".md", ".pyc")
    }
    assert {
        "app/runtime/u8s8.onnx",
        "app/storage/migrations/env.py",
        "export/calibration.txt",
        "export/text.txt",
    } <= wanted
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == wanted


def test_installed_export_makes_a_model_that_the_installed_server_lists(
    python: Path, tmp_path: Path
) -> None:
    save_tiny(tmp_path / "tiny", CONFIGS["llama"]())
    run(python, "-m", "export", "tiny", folder=tmp_path)
    manifest = read_manifest(tmp_path / "models" / "local--tiny")
    assert manifest.quality.text_tokens > 0
    assert manifest.model_id in run(python, "-m", "app", "models", "list", folder=tmp_path)


def test_installed_application_starts_with_its_own_migrations_and_version(
    python: Path, tmp_path: Path
) -> None:
    assert run(python, "-m", "app", "users", "list", folder=tmp_path) == ""
    assert (tmp_path / "data" / "llmhost.db").is_file()
    assert run(python, "-c", TELL_VERSION, folder=tmp_path).strip() == VERSION
