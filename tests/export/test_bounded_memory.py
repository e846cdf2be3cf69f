"""What an export holds: weights stay in files, and one part of a graph is in memory at a time."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export import reference, stream
from export.__main__ import main
from export.calibrate import inputs, page_logits, pieces
from export.errors import NoRoom
from export.graph import SPILLED_BYTES, OnnxGraph
from export.memory import PeakMemory, resident
from export.onnx_file import load_model, read_tensor, save_model
from export.options import ExportOptions
from export.records import read_shape
from export.source import resolve
from export.spill import Spill, place_of
from export.steps import run_clean, run_resolve, run_trace
from export.torch_model import load_model as load_torch_model
from export.weight_file import WeightFile
from tests.export.tiny import CONFIGS, make_model, save_tiny
from tests.export.tiny_gguf import tiny_fields, tiny_tensors, write_gguf

BIG = 1 << 28


def tokens(count: int) -> list[int]:
    return torch.randint(0, 320, (count,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a tiny model, up to the cleaned graph."""
    folder = tmp_path_factory.mktemp("cleaned")
    save_tiny(folder / "source", CONFIGS["llama-3-rope"]())
    options = ExportOptions(str(folder / "source"), folder / "out", folder / "work")
    for step in (run_resolve, run_trace, run_clean):
        step(options)
    return folder / "work"


def test_peak_is_that_of_the_block_alone() -> None:
    before = np.ones(BIG // 8)
    del before
    with PeakMemory() as small:
        pass
    with PeakMemory() as large:
        held = np.ones(BIG // 8)
    if not large.resident:
        pytest.skip("this system has no /proc/self/status")
    assert large.anonymous - small.anonymous > 0.9 * held.nbytes
    assert str(large).endswith(" MB")


def test_summary_says_what_a_step_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny(tmp_path / "source", CONFIGS["llama"]())
    assert (
        main([str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--only", "resolve"]) == 0
    )
    found = re.search(
        r"^resolve +[\d.]+ s +(\d+) MB  folder", capsys.readouterr().out, re.MULTILINE
    )
    if not resident():
        pytest.skip("this system has no /proc/self/status")
    assert found is not None
    assert int(found[1]) > 50, "an interpreter with torch"


def test_mapped_memory_is_not_counted_as_anonymous(tmp_path: Path) -> None:
    with PeakMemory() as before:
        pass
    with Spill(tmp_path / "spill") as spill, PeakMemory() as peak:
        room = spill.room((BIG // 4,), np.float32)
        room[...] = 1
    if not peak.resident:
        pytest.skip("this system has no /proc/self/status")
    assert peak.anonymous - before.anonymous < BIG / 4
    assert peak.resident - before.resident > BIG / 2


def test_constants_of_a_graph_stay_in_its_spill(tmp_path: Path) -> None:
    value = np.arange(SPILLED_BYTES, dtype=np.float32).reshape(-1, 64)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, len(value)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(np.zeros_like(value), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with Spill(tmp_path / "spill") as spill:
        held = OnnxGraph(model, spill)
        name = held.add_constant(value * 2, "w")
        assert not held.initializers[name].raw_data
        found = held.constant(name)
        assert found is not None
        assert place_of(found) is not None
        assert (found == value * 2).all()
        small = held.add_constant(np.zeros(3, np.float32), "small")
        assert held.initializers[small].raw_data
        held.node_list[0].input[1] = name
        save_model(held.finish(), tmp_path / "model.onnx")
    assert not (tmp_path / "spill").exists()
    [tensor] = load_model(tmp_path / "model.onnx").graph.initializer
    assert (read_tensor(tensor) == value * 2).all()


def test_a_view_of_a_mapped_array_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    with Spill(tmp_path / "spill") as spill:
        room = spill.room((8, 4), np.float32)
        assert place_of(room) == (spill.path, 0)
        assert place_of(room[1:]) is None
        assert place_of(room.T) is None


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with (
        Spill(tmp_path / "spill") as spill,
        pytest.raises(NoRoom, match=r"no room for \d+ bytes more"),
    ):
        spill.room((1 << 40, 1 << 10), np.float32)
    with (
        WeightFile(tmp_path / "weights") as weights,
        pytest.raises(NoRoom, match=r"no room for \d+ bytes more"),
    ):
        weights.take(torch.zeros(1).expand(1 << 40, 1 << 10))


@pytest.mark.parametrize("part_bytes", [1, 120_000, 1 << 28])
def test_a_graph_run_in_parts_says_what_it_says_as_a_whole(
    part_bytes: int, cleaned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PART_BYTES", part_bytes)
    graph = OnnxGraph(load_model(cleaned / "clean" / "model.onnx"))
    shape = read_shape(cleaned).graph
    parts = [*stream.cut(graph, ["logits"], {})]
    assert (len(parts) == 1) == (part_bytes == 1 << 28)
    assert [id(n) for part in parts for n in part.nodes] == [
        id(n) for n in stream.needed(graph, ["logits"])
    ]
    if part_bytes == 120_000:
        assert max(len(part.passing) for part in parts) <= 2, "cut where little passes"
    ids = tokens(300)
    found = np.concatenate([*page_logits(graph, cleaned, shape, ids)])
    session = stream.ort.InferenceSession(
        cleaned / "clean" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    wanted = np.concatenate(
        [session.run(["logits"], inputs(shape, piece))[0][0] for piece in pieces(shape, ids)]
    )
    assert found.shape == (300, 320)
    assert np.abs(found - wanted).max() < 1e-5
    assert not (cleaned / stream.PART_FILE).exists()


def test_parts_give_values_that_are_wanted_and_read_on_the_way(cleaned: Path) -> None:
    graph = OnnxGraph(load_model(cleaned / "clean" / "model.onnx"))
    shape = read_shape(cleaned).graph
    norms = graph.nodes("SkipSimplifiedLayerNormalization")
    wanted = [norm.output[0] for norm in norms]
    feeds = [inputs(shape, tokens(7)), inputs(shape, tokens(5))]
    found: dict[str, list[tuple[int, ...]]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "PART_BYTES", 1)
        for names, runs in stream.stream(graph, cleaned, feeds, wanted):
            for values in runs:
                for name, value in zip(names, values, strict=True):
                    found.setdefault(name, []).append(value.shape)
    assert found == {name: [(1, 7, 64), (1, 5, 64)] for name in wanted}


def test_loaded_weights_are_in_the_file_and_those_of_the_model(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "source", CONFIGS["llama-3-rope"]())
    source = resolve(str(tmp_path / "source"), tmp_path / "work")
    with WeightFile(tmp_path / "weights.bin") as weights:
        loaded = load_torch_model(source, weights)
        stored = weights.path.read_bytes()
        for name, wanted in model.named_parameters():
            found = dict(loaded.named_parameters())[name]
            start = weights.place(found)
            in_file = np.frombuffer(stored, np.float32, wanted.numel(), start)
            assert (in_file == wanted.detach().numpy().ravel()).all(), name
            assert torch.equal(found, wanted), name
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_traced_graph_holds_no_matrix_and_the_cleaned_one_a_tied_one_twice_at_most(
    cleaned: Path,
) -> None:
    traced = load_model(cleaned / "traced" / "model.onnx")
    largest = max(len(tensor.raw_data) for tensor in traced.graph.initializer)
    assert largest <= 192 * 8 * 4, "a table of the rotary embedding"
    clean = OnnxGraph(load_model(cleaned / "clean" / "model.onnx"))
    shapes = [tuple(t.dims) for t in clean.initializers.values() if 320 in t.dims]
    assert sorted(shapes) == [(64, 320), (320, 64)]


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "opt", "cohere", "granite"])
def test_torchs_logits_in_pieces_are_those_of_one_pass(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(CONFIGS[name]())
    model.config._attn_implementation = "eager"
    ids = tokens(150)
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    monkeypatch.setattr(reference, "TOKENS", 48)
    rows: list[int] = []
    with model.get_output_embeddings().register_forward_hook(
        lambda _, __, output: rows.append(output.shape[1])
    ):
        found = [*reference.logits_in_pieces(model, ids)]
    assert rows == [1, 48, 48, 48, 6]
    assert (torch.cat(found) - wanted).abs().max() < 1e-5


def test_weights_of_a_gguf_file_are_in_the_file(tmp_path: Path) -> None:
    model = make_model(CONFIGS["llama"]())
    path = write_gguf(tmp_path / "m.gguf", tiny_fields(model.config), tiny_tensors(model))
    with WeightFile(tmp_path / "weights.bin") as weights:
        loaded = load_torch_model(resolve(str(path), tmp_path / "work"), weights)
        size = weights.size
        for name, wanted in model.named_parameters():
            found = dict(loaded.named_parameters())[name]
            assert torch.allclose(found, wanted, atol=1e-6), name
            weights.place(found)
        assert weights.size == size, "they were all there, each once"
