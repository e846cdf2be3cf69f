import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from app.manifest import Graph, read_manifest
from app.runtime.arithmetic import multiplies_exactly
from export.__main__ import main
from export.graph import OnnxGraph
from export.integer import CALIBRATION, Page, turn
from export.onnx_file import load_model
from export.spill import Spill
from export.steps import Findings, read_findings, read_shape
from tests.export.tiny import CONFIGS, REFUSED, WINDOW, make_model, save_tiny

GREEDY_TOKENS = 24
MOST_NODES = {"llama": 27, "qwen2": 27, "mistral": 27, "smollm3": 27, "qwen3": 43, "gpt2": 59}
"""For two layers; a few that must not grow by accident."""
ROTATED = {
    **dict.fromkeys(("phi3", "opt", "gpt-neox", "glm", "glm4", "phi"), (False, 0)),
    **dict.fromkeys(("hunyuan", "persimmon"), (False, 0)),
    **dict.fromkeys(("gemma2", "gemma3", "gpt2", "cohere", "cohere2", "olmo2"), (False, 2)),
    **dict.fromkeys(("starcoder2", "exaone4", "olmo", "olmo3", "gpt-neo"), (False, 2)),
    **dict.fromkeys(("stablelm", "bloom", "roberta"), (False, 0)),
    "bitnet": (True, 0),
}
"""Where not everything can be rotated: whether the stream is, and in how many layers the values."""


@pytest.mark.parametrize("name", CONFIGS)
def test_exported_model_follows_torch_token_by_token(
    name: str, tmp_path: Path, export_row: Callable[[str], None]
) -> None:
    started = time.perf_counter()
    save_tiny(tmp_path / "source", CONFIGS[name]())
    out = tmp_path / "out"
    command = [str(tmp_path / "source"), "--out", str(out), "--keep-work"]
    assert main([*command, "--quantise", "int8"]) == 0
    work = tmp_path / ".work" / "out"
    manifest, findings = read_manifest(out), read_findings(work)
    graph = OnnxGraph(load_model(out / manifest.graph.file))
    nodes = len(graph.node_list)
    attention = graph.nodes("GroupQueryAttention")
    scales = {a.f for node in attention for a in node.attribute if a.name == "scale"}
    export_row(table_row(name, nodes, findings, time.perf_counter() - started))

    # Premise: a model that repeats one token would follow torch whatever its cache holds.
    assert findings.greedy_distinct >= 9, f"{findings.greedy_distinct} different tokens"
    assert findings.greedy_tokens >= GREEDY_TOKENS
    assert findings.greedy_ties == 0
    assert findings.greedy_max_difference < 1e-4
    assert manifest.quality.mean_kl < 0.01
    assert findings.batch_difference == 0.0
    assert manifest.quantisation.batch_invariant
    assert nodes <= MOST_NODES.get(name, 300)
    assert scales == {1.0}, "the kernel for one query takes no other"

    assert main([*command, "--from", "quantise", "--quantise", "w8a8"]) == 0
    manifest = read_manifest(out)
    assert manifest.quantisation.arithmetic == ("u8s8" if multiplies_exactly() else "any")
    assert manifest.quality.mean_kl < 0.01
    assert manifest.quantisation.batch_invariant
    products = OnnxGraph(load_model(out / manifest.graph.file)).nodes("MatMulIntegerToFloat")
    assert len(products) >= 2 * 2 + 1, "of two layers and the output layer"
    assert turned(work, read_shape(work).graph) == ROTATED.get(name, (True, 2))


def turned(work: Path, shape: Graph) -> tuple[bool, int]:
    """Rotate the cleaned graph: was the stream, and the values of how many layers?"""
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    ids = tokenizer.encode(CALIBRATION.read_text()).ids[:100]
    with Spill(work / "spill.bin") as spill:
        graph = OnnxGraph(load_model(work / "clean" / "model.onnx"), spill)
        page = Page.read(graph, work, shape, ids)
        rotated, *found = turn(graph, page)
        assert page.kl(rotated) < 1e-6, "a rotation must change nothing"
    return found[0], found[1]


def table_row(name: str, nodes: int, findings: Findings, seconds: float) -> str:
    equal = f"{findings.greedy_tokens}/{findings.greedy_tokens}"
    return (
        f"{name:<14}{nodes:>6}{findings.greedy_max_difference:>14.1e}{equal:>8}"
        f"{findings.quality.mean_kl:>10.5f}{findings.batch_difference:>21.1e}{seconds:>6.1f}"
    )


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_family_is_refused_by_name_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "source", REFUSED[name]())
    assert main([str(tmp_path / "source"), "--out", str(tmp_path / "models" / "out")]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"refused: {model.config.model_type} is not supported: ")
    assert last.count(".") <= 1, "one sentence"
    left = [path for path in (tmp_path / "models").rglob("*") if path.is_file()]
    assert left == []


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3", "cohere2"])
def test_sliding_window_matters_and_reaches_the_graph(name: str, tmp_path: Path) -> None:
    narrow_config, wide_config = CONFIGS[name](), CONFIGS[name]()
    wide_config.sliding_window = 4 * WINDOW
    windowed, wide = make_model(narrow_config), make_model(wide_config)
    ids = torch.arange(3 * WINDOW)[None] % narrow_config.vocab_size
    with torch.no_grad():
        shift = (windowed(ids).logits[0, -1] - wide(ids).logits[0, -1]).abs().max()
    assert shift > 1e-3, "the window must change the logits or this proves nothing"

    save_tiny(tmp_path / "source", CONFIGS[name]())
    command = [str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--only"]
    for step in ("resolve", "trace", "clean"):
        assert main([*command, step]) == 0
    work = tmp_path / ".work" / "out"
    windows = read_shape(work).windows
    assert WINDOW in windows
    attention = OnnxGraph(load_model(work / "clean" / "model.onnx")).nodes("GroupQueryAttention")
    found = [
        next((a.i for a in node.attribute if a.name == "local_window_size"), None)
        for node in attention
    ]
    assert tuple(found) == windows


def test_llama_graph_has_no_shape_arithmetic_and_packed_attention(tmp_path: Path) -> None:
    save_tiny(tmp_path / "source", CONFIGS["llama"]())
    command = [str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--only"]
    for step in ("resolve", "trace", "clean"):
        assert main([*command, step]) == 0
    graph = OnnxGraph(load_model(tmp_path / ".work" / "out" / "clean" / "model.onnx"))
    assert not graph.nodes("Shape", "Gather", "Concat", "Reshape", "Transpose", "Cast")[1:], (
        "one: the embedding"
    )
    for node in graph.nodes("GroupQueryAttention"):
        assert list(node.input[1:3]) == ["", ""], "queries, keys and values in one"
        assert node.input[16] == "query_seqlens"
    assert len(graph.nodes("SkipSimplifiedLayerNormalization")) == 4


def test_only_the_asked_rows_reach_the_output_layer(tmp_path: Path) -> None:
    save_tiny(tmp_path / "source", CONFIGS["qwen2"]())
    command = [str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--only"]
    for step in ("resolve", "trace", "clean"):
        assert main([*command, step]) == 0
    graph = OnnxGraph(load_model(tmp_path / ".work" / "out" / "clean" / "model.onnx"))
    head = graph.made_by("logits", "MatMul")
    assert head is not None
    picked = graph.made_by(head.input[0], "GatherND")
    assert picked is not None
