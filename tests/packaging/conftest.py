"""The wheel, and an environment that has it.

The environment sees the packages of the one that runs these tests, but not the checkout: so
nothing that only a checkout has can make up for what the wheel lacks.
"""

import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.packaging.commands import PACKAGES, ROOT, run


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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
