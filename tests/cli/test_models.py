import json
from pathlib import Path

import pytest

from app.cli.main import main
from tests.tiny_model import write_tiny_model


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("LLMHOST_MODELS_DIR", str(tmp_path))
    write_tiny_model(tmp_path, "tiny/b")
    write_tiny_model(tmp_path, "tiny/a")

    def run(*arguments: str) -> tuple[int, str, str]:
        return main(arguments), *capsys.readouterr()

    return run


def test_models_are_listed_by_name(run):
    status, out, _ = run("models", "list")
    assert status == 0
    assert [line.split("\t")[:2] for line in out.splitlines()] == [
        ["tiny/a", "none"],
        ["tiny/b", "none"],
    ]


def test_show_prints_the_manifests_figures(run):
    status, out, _ = run("models", "show", "tiny/a")
    assert status == 0
    figures = dict(line.split("  ", 1) for line in out.splitlines())
    assert figures["model"].strip() == "tiny/a"
    assert figures["context"].strip() == "256 tokens"
    assert figures["KV cache"].strip() == "512 bytes per token, float32"


def test_an_unknown_model_is_said_in_one_line(run):
    status, out, err = run("models", "show", "../tiny--a")
    assert (status, out) == (1, "")
    assert err.startswith("model '../tiny--a' is not in ")
    assert err.endswith("; `llmhost list` shows what is\n")


def test_show_knows_no_adapter_that_the_model_has_not(run):
    status, out, err = run("show", "tiny/a:parrot")
    assert (status, out) == (1, "")
    assert "'tiny/a:parrot' is not in" in err


def test_show_takes_the_name_that_run_takes_and_says_what_mends_a_broken_model(run, tmp_path: Path):
    assert run("show", "B") == run("show", "tiny/b")
    (tmp_path / "tiny--b" / "manifest.json").write_text("{")
    status, out, err = run("show", "b")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.endswith(": `llmhost pull tiny/b` makes the model anew\n")


def test_the_short_commands_say_the_same_and_a_broken_model_too(run, tmp_path: Path):
    assert run("list") == run("models", "list")
    assert run("show", "tiny/a") == run("models", "show", "tiny/a")
    (tmp_path / "tiny--b" / "model.onnx").unlink()
    status, out, _ = run("list")
    assert (status, out.splitlines()[1].split("\t")[:2]) == (0, ["tiny/b", "broken"])
    rows = json.loads(run("list", "--json")[1])
    assert [row["model"] for row in rows] == ["tiny/a", "tiny/b"]
    assert rows[1]["broken"].endswith("found missing")


def test_a_model_is_removed_when_that_is_confirmed(run, tmp_path: Path):
    status, _, err = run("rm", "tiny/a")
    assert (status, "--yes" in err) == (1, True)
    assert run("rm", "tiny/a", "--yes")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tiny--b"]
    status, _, err = run("rm", "tiny/a", "--yes")
    assert (status, "`llmhost list` shows what is" in err) == (1, True)
    assert run("rm", "../x", "--yes")[0] == 1
