"""Mixtures of experts: routed as torch routes, one node a layer, in float32 and in blocks.

One family for each mechanism; `tiny.MIXTURES` has all of them.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from torch import Tensor
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeTopkRouter
from transformers.models.phimoe.modeling_phimoe import sparsemixer

from app.manifest import read_manifest
from export.__main__ import main
from export.errors import UnsupportedModel
from export.graph import OnnxGraph
from export.mixture import find_mixtures
from export.observe import observe
from export.onnx_file import load_model, save_model
from export.quantise import BLOCK_SIZE, Scheme, quantise_rows
from export.quantise_experts import quantise_experts
from export.records import read_findings, read_shape
from export.reference import logits_in_pieces
from export.routing import Routing
from export.session import GraphSession
from export.validate import TEXT, measure_quality
from tests.export.tiny import MIXTURES, make_model, save_tiny

TOKENS = 96
E, H, WIDTH = 4, 64, 96


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def choices(shares: Tensor) -> int:
    return len({tuple(row.nonzero()[:, 0].tolist()) for row in shares})


def routers(graph: OnnxGraph) -> list[NodeProto]:
    """Products of as many columns as the tiny models have experts."""
    matrices = [(n, graph.initializers.get(n.input[1])) for n in graph.nodes("MatMul")]
    return [n for n, matrix in matrices if matrix is not None and matrix.dims[1] in (4, 8)]


@pytest.mark.parametrize("name", ["mixtral", "glm4-moe", "gpt-oss", "llama4"])
def test_experts_are_one_node_and_follow_torch(name: str, tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "source", MIXTURES[name]())
    out = tmp_path / "out"
    command = [str(tmp_path / "source"), "--out", str(out), "--keep-work", "--quantise", "int8"]
    assert main(command) == 0
    work = tmp_path / ".work" / "out"
    findings, shape = read_findings(work), read_shape(work).graph
    assert findings.greedy_distinct >= 9
    assert findings.greedy_max_difference < 1e-4
    # In float32 the graph says what torch does.
    ids = Tokenizer.from_file(str(work / "tokenizer.json")).encode(TEXT.read_text()).ids[:TOKENS]
    session = GraphSession(work / "clean", shape, rows=1, capacity=TOKENS)
    assert measure_quality(logits_in_pieces(model, ids), session, ids).mean_kl < 1e-6
    # In blocks it is near, and a row's logits are its own whatever else its experts are given.
    quality = read_manifest(out).quality
    assert quality.mean_kl < 0.01, quality
    assert findings.batch_difference == 0.0
    graph = OnnxGraph(load_model(out / "model.onnx"))
    mixtures = len(find_mixtures(model, name))
    assert len(graph.nodes("QMoE")) == mixtures >= 1
    assert not graph.nodes("MoE")
    assert len(routers(graph)) == mixtures, "routers keep their weights"


def test_weights_of_experts_are_in_no_traced_graph(tmp_path: Path) -> None:
    save_tiny(tmp_path / "source", MIXTURES["gpt-oss"]())
    command = [str(tmp_path / "source"), "--out", str(tmp_path / "out"), "--only"]
    for step in ("resolve", "trace"):
        assert main([*command, step]) == 0
    traced = load_model(tmp_path / ".work" / "out" / "traced" / "model.onnx")
    largest = max(len(tensor.raw_data) for tensor in traced.graph.initializer)
    assert largest <= 192 * 8 * 4, "a table of the rotary embedding"


def test_a_sink_takes_part_in_attention() -> None:
    model = make_model(MIXTURES["gpt-oss"]())
    ids = torch.arange(24)[None]
    with torch.no_grad():
        before = model(ids).logits
        for name, parameter in model.named_parameters():
            if name.endswith("sinks"):
                parameter.fill_(-100.0)
        shift = (model(ids).logits - before).abs().max()
    assert shift > 1e-3, "sinks must change the logits or the test above proves nothing of them"


def test_mixture_without_a_silu_gate_is_refused() -> None:
    config = MIXTURES["mixtral"]()
    config.hidden_act = "gelu"
    with pytest.raises(UnsupportedModel, match=r"MixtralSparseMoeBlock .* SiLU"):
        observe(make_model(config))


def test_granite_is_refused_for_the_state_space_layers_it_has_alone() -> None:
    config = MIXTURES["granitemoehybrid"]()
    assert len(observe(make_model(config)).mixtures) == 2
    config.layer_types, config.mamba_n_heads = ["attention", "mamba"], 8
    with pytest.raises(UnsupportedModel, match="recurrent state"):
        observe(make_model(config))


def test_sparsemixer_is_phis() -> None:
    logits = random(200, 8)
    wanted, chosen = sparsemixer(logits, jitter_eps=0.1, training=False)
    dense = torch.zeros_like(logits).scatter(-1, chosen, wanted)
    found = Routing(k=2, scores="sparsemixer", jitter=0.1).shares(logits)
    assert choices(dense) > 20
    assert float(wanted.min()) < 1.0, "some must share with experts that are close"
    assert torch.allclose(found, dense)


@pytest.mark.parametrize("normalise", [True, False])
def test_groups_and_correction_are_glms(normalise: bool) -> None:
    config = MIXTURES["glm4-moe"]()
    config.norm_topk_prob, config.routed_scaling_factor = normalise, 1.5
    router = Glm4MoeTopkRouter(config)
    router.weight.data = random(8, 64)
    router.e_score_correction_bias.data = random(8, seed=1)
    x = random(200, 64, seed=2) / 8
    with torch.no_grad():
        chosen, weights = router(x)
        logits = x @ router.weight.T
    wanted = torch.zeros_like(logits).scatter(-1, chosen, weights)
    routing = Routing(
        k=2, scores="sigmoid", normalise=normalise, scale=1.5, groups=2, group_score="best two"
    )
    found = routing.shares(logits, router.e_score_correction_bias)
    assert choices(wanted) > 5
    assert torch.allclose(found, wanted)
    # What the operator is given: its softmax makes the same shares of it, but for a factor.
    given, factor = routing.for_operator(logits, router.e_score_correction_bias)
    assert factor is not None
    assert torch.allclose(given.softmax(-1) * factor, wanted, atol=1e-6)


def test_operator_routes_by_itself_where_it_can() -> None:
    logits = random(5, 8)
    assert Routing(k=2, normalise=True).for_operator(logits, None) == (logits, None)
    # QMoE divides shares by their sum whatever it is told: what that takes away is given back.
    undivided = Routing(k=2, scale=2.0)
    given, factor = undivided.for_operator(logits, None)
    assert given is logits
    assert factor is not None
    divided = Routing(k=2, normalise=True).shares(logits)
    assert torch.allclose(divided * factor, undivided.shares(logits))
    assert not torch.allclose(divided, undivided.shares(logits))
    assert Routing(k=2).for_operator(logits, torch.zeros(8))[0] is not logits


def graph_with_experts(fc1: np.ndarray, fc2: np.ndarray, k: int = 2) -> OnnxGraph:
    node = helper.make_node(
        "MoE", ["x", "router", "fc1", "", "fc2"], ["y"], domain="com.microsoft", k=k,
        activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.0, activation_beta=0.0,
        normalize_routing_weights=1,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "test",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", H]),
            helper.make_tensor_value_info("router", TensorProto.FLOAT, ["rows", E]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "tokens", H])],
        [numpy_helper.from_array(fc1, "fc1"), numpy_helper.from_array(fc2, "fc2")],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return OnnxGraph(helper.make_model(graph, opset_imports=opsets, ir_version=9))


def feeds() -> dict[str, np.ndarray]:
    return {"x": random(2, 5, H).numpy(), "router": 2 * random(10, E).numpy()}


def run(graph: OnnxGraph, folder: Path) -> np.ndarray:
    save_model(graph.finish(), folder / "model.onnx")
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds())[0])


def rounded(stack: np.ndarray, scheme: Scheme) -> np.ndarray:
    """What the blocks of a stack stand for."""
    blocks = quantise_rows(stack.reshape(-1, stack.shape[-1]), scheme)
    codes, zero = blocks.codes.astype(np.float32), np.float32(128)
    if scheme == "int4":
        assert blocks.zero_points is not None
        codes = np.stack([blocks.codes & 15, blocks.codes >> 4], -1).reshape(len(codes), -1, 32)
        pairs = np.stack([blocks.zero_points & 15, blocks.zero_points >> 4], -1)
        zero = pairs.reshape(len(codes), -1)[:, : codes.shape[1], None].astype(np.float32)
    return ((codes - zero) * blocks.scales[..., None]).astype(np.float32).reshape(stack.shape)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_quantised_experts_differ_by_their_inputs_rounding(scheme: Scheme, tmp_path: Path) -> None:
    fc1, fc2 = random(E, 2 * WIDTH, H).numpy() / 8, random(E, H, WIDTH, seed=1).numpy() / 8
    graph = graph_with_experts(fc1, fc2)
    assert quantise_experts(graph, scheme) == 2 * E
    found = run(graph, tmp_path)
    wanted = run(graph_with_experts(rounded(fc1, scheme), rounded(fc2, scheme)), tmp_path)
    largest = float(np.abs(wanted).max())
    assert float(np.abs(found - wanted).max()) < 0.03 * largest
    assert float(np.abs(found - run(graph_with_experts(fc1, fc2), tmp_path)).max()) > 0


@pytest.mark.parametrize("k", [2, 3])
def test_a_token_gets_the_same_bits_alone_and_among_others(k: int, tmp_path: Path) -> None:
    fc1, fc2 = random(E, 2 * WIDTH, H).numpy() / 8, random(E, H, WIDTH, seed=1).numpy() / 8
    graph = graph_with_experts(fc1, fc2, k)
    wanted = run(graph_with_experts(fc1, fc2, k), tmp_path)
    quantise_experts(graph, "int8")
    found = run(graph, tmp_path)
    assert float(np.abs(found - wanted).max()) < 0.03 * float(np.abs(wanted).max())
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    x, router = feeds()["x"], feeds()["router"]
    for i in range(10):
        one = {"x": x[i // 5 :, i % 5 :][:1, :1], "router": router[i : i + 1]}
        assert np.array_equal(session.run(None, one)[0][0, 0], found[i // 5, i % 5])


def test_experts_that_blocks_do_not_divide_keep_their_weights() -> None:
    narrow = WIDTH - BLOCK_SIZE // 2
    graph = graph_with_experts(np.ones((E, 2 * narrow, H), "f"), np.ones((E, H, narrow), "f"))
    assert quantise_experts(graph, "int8") == 0
    assert len(graph.nodes("MoE")) == 1
