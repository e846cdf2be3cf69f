"""The wheel holds all that an installed copy needs: it is built, installed and made to work."""

import tomllib
import zipfile
from pathlib import Path

from app.manifest import read_manifest
from tests.export.tiny import CONFIGS, save_tiny
from tests.packaging.commands import PACKAGES, ROOT, run

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
TELL_VERSION = """
from app import app  # what `granian app:app` imports
from app.asgi import create_app
from app.settings import load_settings

print(create_app(load_settings()).openapi_schema.info.version)
"""


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
