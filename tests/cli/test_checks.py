"""What `llmhost serve` says before it starts: one sentence, and what to do."""

import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.cli.checks import check_disk, check_free_memory, check_model, check_port
from app.cli.main import main
from app.cli.serve import exported_as
from app.manifest import read_manifest
from app.settings import Settings
from tests.e2e.server import free_port
from tests.tiny_model import write_tiny_model


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_taken_port_is_said_with_who_has_it_and_another_one(taken: int):
    check = check_port("127.0.0.1", taken)
    assert check.state == "problem"
    assert check.text.startswith(f"port {taken} of 127.0.0.1 is in use by process ")
    assert check.text.endswith(f"choose another with --port {taken + 1}")
    assert check_port("0.0.0.0", taken).state == "problem"


@pytest.mark.parametrize(
    ("host", "words"),
    [("no such host", "is no address: choose"), ("192.0.2.1", "is no address of this machine")],
)
def test_an_address_that_is_not_ours_is_said(host: str, words: str):
    assert words in check_port(host, 8000).text


def test_a_data_directory_that_is_none_is_said(tmp_path: Path):
    (tmp_path / "file").touch()
    assert "is no folder: choose another with --data-dir" in check_disk(tmp_path / "file").text
    assert check_disk(tmp_path / "not" / "yet").state == "ok"


def test_a_model_is_missing_broken_or_too_large_with_what_to_do(tmp_path: Path, monkeypatch):
    settings = Settings(models_dir=tmp_path, model="tiny/a")
    assert "`llmhost pull tiny/a` makes it" in check_model(settings)[0].text
    folder = write_tiny_model(tmp_path, "tiny/a")
    write_tiny_model(tmp_path, "tiny/b")
    check, manifest = check_model(settings)
    assert check.state == "ok"
    assert manifest == read_manifest(folder)
    (folder / "model.onnx").write_bytes(b"short")
    assert "is broken, " in check_model(settings)[0].text
    assert "`llmhost pull tiny/a` makes it anew" in check_model(settings)[0].text
    adapter = check_model(Settings(models_dir=tmp_path, model="tiny/b:poet"))[0].text
    assert "`llmhost pull tiny/b --adapter poet=FOLDER` makes it" in adapter
    other = check_model(Settings(models_dir=tmp_path, model="tiny/c"))[0].text
    assert other.endswith("or choose one of tiny/a, tiny/b with --model")

    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1_000_000})
    )
    assert manifest is not None
    memory = check_free_memory(manifest, settings)
    assert memory.state == "problem"
    assert memory.text.endswith("lower --slots or --context-length, or close what takes memory")


def test_all_problems_are_said_at_once_and_nothing_is_started(taken: int, tmp_path: Path, capsys):
    status = main(
        ["serve", "--port", str(taken), "--models-dir", str(tmp_path), "--data-dir", str(tmp_path)]
    )
    first, second = capsys.readouterr().err.splitlines()
    assert status == 1
    assert first.startswith("Port ")
    assert second.startswith("There is no model 'HuggingFaceTB/SmolLM2-135M-Instruct' in ")
    assert second.endswith("`llmhost pull` makes it.")


def test_the_fast_profile_is_another_model_beside_the_exact_one(tmp_path: Path, capsys):
    write_tiny_model(tmp_path, "tiny/a-fast")
    asked = ("serve", "--check", "--models-dir", str(tmp_path), "--data-dir", str(tmp_path))
    assert main([*asked, "--model", "tiny/a", "--profile", "fast", "--port", "0"]) == 2
    port = str(free_port())
    assert main([*asked, "--model", "tiny/a", "--profile", "fast", "--port", port]) == 0
    assert "model   tiny/a-fast, none, " in capsys.readouterr().err
    assert main([*asked, "--profile", "fast", "--port", port]) == 1
    assert "`llmhost pull --profile fast` makes it" in capsys.readouterr().err
    assert main([*asked, "--model", "tiny/a-fast", "--profile", "exact", "--port", port]) == 1
    assert "`llmhost pull tiny/a` makes it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "profile", "found"),
    [
        ("p/x", "fast", "p/x-fast"),
        ("p/x-fast", "exact", "p/x"),
        ("p/x:pirate", "fast", "p/x-fast:pirate"),
        ("p/x-fast:pirate", "exact", "p/x:pirate"),
    ],
)
def test_a_profile_is_of_the_model_and_not_of_its_adapter(model, profile, found):
    assert exported_as(model, profile) == found
