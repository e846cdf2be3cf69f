import json
from pathlib import Path

import numpy as np
import pytest

from app.manifest import Graph, Manifest, read_manifest
from export import steps
from export.__main__ import main
from export.options import ExportOptions
from export.session import GraphSession
from export.source import DEFAULT_MODEL_ID, model_id_of
from export.work_folder import held
from tests.export.tiny import CONFIGS, save_tiny

Source = tuple[Path, Path]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A tiny source folder and its export, with the steps' files kept."""
    folder = tmp_path_factory.mktemp("llama")
    save_tiny(folder / "source", CONFIGS["llama"]())
    assert main([str(folder / "source"), "--out", str(folder / "out"), "--keep-work"]) == 0
    return folder / "source", folder / "out"


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_folder_holds_what_the_manifest_says(llama: Source) -> None:
    source, out = llama
    manifest = read_manifest(out)
    assert {path.name for path in out.iterdir()} == {*manifest.files, "manifest.json"}
    assert manifest.model_id == f"local/{source.name}"
    assert manifest.architecture == "llama"
    assert manifest.tokens.eos_ids == (1,)
    assert not manifest.chat
    assert manifest.quality.text_tokens == 184
    assert manifest.graph == Graph(
        file="model.onnx",
        num_layers=2,
        num_kv_heads=2,
        head_dim=16,
        vocab_size=320,
        context_length=192,
        kv_dtype="float32",
    )


def test_profile_fast_is_4_bit_under_a_name_of_its_own(llama: Source, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # random weights are not made for 4 bit: quality is not the question here
    assert main([str(llama[0]), "--out", str(out), "--profile", "fast", "--gate", "1000"]) == 0
    manifest = read_manifest(out)
    assert manifest.model_id == f"local/{llama[0].name}-fast"
    assert manifest.quantisation.scheme == "int4"


def test_a_quick_export_measures_on_a_part_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def run(options: ExportOptions, *_: object) -> None:
        measured.append(options.text_tokens)

    monkeypatch.setattr("export.__main__.run", run)
    assert [main([]), main(["--quick"])] == [0, 0]
    assert measured == [2048, 512]


def test_over_the_gate_is_refused_with_figures_and_leaves_nothing(
    llama: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models" / "out"
    assert main([str(llama[0]), "--out", str(out), "--quantise", "int4", "--gate", "0.001"]) == 1
    said = capsys.readouterr().err
    for word in ("int4", "mean KL", "top-1", "perplexity", "the gate is 0.001"):
        assert word in said
    assert files_below(tmp_path / "models") == []


def test_refusal_keeps_the_model_that_was_there(llama: Source, tmp_path: Path) -> None:
    command = [str(llama[0]), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    before = read_manifest(tmp_path / "out")
    assert main([*command, "--gate", "0"]) == 1
    assert read_manifest(tmp_path / "out") == before


def test_one_step_can_run_again_alone(llama: Source) -> None:
    source, out = llama
    command = [str(source), "--out", str(out)]
    before = read_manifest(out)
    assert main([*command, "--from", "quantise", "--quantise", "none", "--keep-work"]) == 0
    floats = read_manifest(out)
    assert floats.quantisation.scheme == "none"
    assert abs(floats.quality.mean_kl) < 1e-6
    for step in ("quantise", "validate", "publish"):
        assert main([*command, "--only", step]) == 0
    assert read_manifest(out).files == before.files, "the same source gives the same bytes"


def test_an_interrupted_export_goes_on_with_the_step_it_was_in(
    llama: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [str(llama[0]), "--out", str(tmp_path / "models" / "out")]
    with monkeypatch.context() as patch:

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(steps, "quantise_to_integers", interrupt)
        patch.setattr(steps, "quantise", interrupt)
        assert main(command) == 130
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("stopped in quantise: the same command with --from quantise goes on")
    assert not (tmp_path / "models" / "out").exists()
    assert main([*command, "--from", "quantise"]) == 0
    assert read_manifest(tmp_path / "models" / "out").files == read_manifest(llama[1]).files
    assert not (tmp_path / "models" / ".work" / "out").exists()


def test_an_export_that_is_interrupted_before_a_step_is_finished_leaves_nothing(
    llama: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(steps.sources, "resolve", interrupt)
    with pytest.raises(KeyboardInterrupt):
        main([str(llama[0]), "--out", str(tmp_path / "models" / "out")])
    assert files_below(tmp_path) == []


def test_a_second_export_of_a_model_is_refused_until_the_first_ends(
    llama: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(llama[0]), "--out", str(tmp_path / "models" / "out")]
    with held(tmp_path / "models" / ".work" / "out"):
        assert main(command) == 1
        assert capsys.readouterr().err == (
            "refused: another export of out is going on: wait for its end, or stop it\n"
        )
    assert files_below(tmp_path) == []
    assert main(command) == 0


def test_step_without_its_input_says_what_is_missing(
    llama: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(llama[0]), "--out", str(tmp_path / "out"), "--only", "quantise"]) == 1
    assert "is missing, run the step before it" in capsys.readouterr().err


def test_another_missing_file_is_not_taken_for_an_earlier_steps_output(
    llama: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, out = llama
    monkeypatch.setattr(steps, "TEXT", tmp_path / "text.txt")
    with pytest.raises(FileNotFoundError, match=r"text\.txt"):
        main([str(source), "--out", str(out), "--only", "validate"])
    monkeypatch.undo()
    assert main([str(source), "--out", str(out), "--only", "validate"]) == 0


@pytest.mark.parametrize("source", ["/nowhere/model.gguf", "not a model", "/nowhere/folder"])
def test_source_that_is_not_there_is_one_sentence(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([source, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("refused: ")
    assert files_below(tmp_path) == []


def test_float16_keeps_half_the_cache_and_the_tokens(llama: Source, tmp_path: Path) -> None:
    command = [str(llama[0]), "--out", str(tmp_path / "out"), "--dtype", "float16"]
    assert main([*command, "--quantise", "none"]) == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.graph.kv_dtype == "float16"
    assert manifest.quality.mean_kl < 1e-4


def test_row_without_new_tokens_keeps_its_cache(llama: Source) -> None:
    _, out = llama
    session = GraphSession(out, read_manifest(out).graph, rows=3, capacity=192)
    prompts = [[5, 6, 7], [8, 9, 10, 11], [12]]
    session.feed(prompts)
    untouched = session.feed([[], [20], []])[1].copy()
    session.reset()
    session.feed(prompts)
    session.feed([[13], [], [14, 15, 16]])
    assert session.lengths.tolist() == [4, 4, 4]
    assert (session.feed([[], [20], []])[1] == untouched).all()


def test_learned_positions_survive_a_full_row_beside_them(tmp_path: Path) -> None:
    save_tiny(tmp_path / "source", CONFIGS["gpt2"]())
    assert main([str(tmp_path / "source"), "--out", str(tmp_path / "out")]) == 0
    manifest: Manifest = read_manifest(tmp_path / "out")
    context = manifest.graph.context_length
    session = GraphSession(tmp_path / "out", manifest.graph, rows=2, capacity=context + 8)
    session.feed([[7] * (context - 1), [1]])
    # Row 0 is full and idle; the padding of this step reaches beyond the position table.
    beside = session.feed([[], [2, 3, 4]])[1, -1].copy()
    session.reset()
    session.lengths[0] = 0
    session.feed([[1]])
    alone = session.feed([[2, 3, 4]])[0, -1]
    assert np.abs(beside - alone).max() < 1e-5


def test_model_id_comes_from_the_source(tmp_path: Path) -> None:
    assert model_id_of(None) == DEFAULT_MODEL_ID
    assert model_id_of("publisher/name") == "publisher/name"
    assert model_id_of(str(tmp_path / "My model.gguf")) == "local/My-model"


def test_manifest_is_plain_json(llama: Source) -> None:
    assert json.loads((llama[1] / "manifest.json").read_text())["format"] == 1
