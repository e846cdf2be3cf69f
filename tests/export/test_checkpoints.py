"""Quantised checkpoints: read as what their formats' definitions say, bit by bit, or refused."""

import json
import re
import shutil
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from app.manifest import read_manifest
from export.__main__ import main
from export.checkpoints import auto_round, compressed, fp8, gptq
from export.checkpoints.patterns import Patterns
from export.checkpoints.reading import read_checkpoint
from export.checkpoints.tensors import Tensors
from export.errors import SourceUnusable
from export.folder import StoredTensor
from export.source import resolve
from export.torch_model import load_model
from export.weight_file import WeightFile
from tests.export import quantised as q
from tests.export.test_text_part import gemma3
from tests.export.test_text_part import save as save_whole
from tests.export.tiny import CONFIGS, MIXTURES, save_tiny

GPTQ = {"quant_method": "gptq", "group_size": 32}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
AUTO_ROUND = {"quant_method": "auto-round", "bits": 4, "group_size": 32}
BLOCKS = {"quant_method": "fp8", "weight_block_size": [32, 48], "activation_scheme": "dynamic"}
BNB = {"quant_method": "bitsandbytes"}


def channels(rows: int, _columns: int) -> tuple[int, ...]:
    return (rows, 1)


def with_zeros(quantiser: q.Quantiser, dtype: torch.dtype) -> q.Quantiser:
    """With zero points that are 0, as older releases store them."""

    def quantise(weight: q.Array) -> q.Stored:
        tensors, wanted = quantiser(weight)
        zeros = torch.zeros_like(tensors["weight_scale"]).to(dtype)
        return {**tensors, "weight_zero_point": zeros}, wanted

    return quantise


VARIANTS: dict[str, tuple[dict[str, Any], q.Quantiser]] = {
    "gptq": (GPTQ | {"bits": 4}, q.gptq()),
    "gptq of 2 bits": (GPTQ | {"bits": 2}, q.gptq(bits=2)),
    "gptq of 3 bits": (GPTQ | {"bits": 3}, q.gptq(bits=3)),
    "gptq of 8 bits": (GPTQ | {"bits": 8}, q.gptq(bits=8)),
    "gptq by activations": (GPTQ | {"bits": 4, "desc_act": True}, q.gptq(shuffled=True)),
    "gptq symmetric": (GPTQ | {"bits": 4, "sym": True}, q.gptq(sym=True, g_idx=False)),
    "gptq of 3 bits in rows": (
        GPTQ | {"bits": 3, "group_size": -1}, q.gptq(bits=3, group_size=-1, g_idx=False),
    ),
    "gptq in a group beyond the inputs": (
        GPTQ | {"bits": 4, "group_size": 2**70}, q.gptq(group_size=-1),
    ),
    "gptq, second version": (
        GPTQ | {"bits": 4, "checkpoint_format": "gptq_v2"}, q.gptq(version=2),
    ),
    "gptq, second version by its newer name": (
        GPTQ | {"bits": 4, "format": "gptq_v2"}, q.gptq(version=2),
    ),
    "gptq by module": (
        GPTQ | {"bits": 4, "dynamic": {"-:.*head": {}, r"+:.*_proj": {"bits": 8}}}, q.gptq(bits=8),
    ),
    "gptq, second version by module": (
        GPTQ | {"bits": 4, "dynamic": {"-:lm": {}, r".*_proj": {"format": "gptq_v2"}, ".*": {}}},
        q.gptq(version=2),
    ),
    "awq": (AWQ, q.awq()),
    "auto-round": (AUTO_ROUND | {"packing_format": "auto_round:auto_gptq"}, q.gptq(g_idx=False)),
    "auto-round, zero points as they are": (
        AUTO_ROUND | {"packing_format": "auto_round"}, q.gptq(version=2, g_idx=False),
    ),
    "auto-round by module": (
        AUTO_ROUND
        | {"packing_format": "auto_round:gptqmodel", "extra_config": {r".*_proj": {"bits": 3}}},
        q.gptq(version=2, bits=3, g_idx=False),
    ),
    "auto-round by a part of names": (
        AUTO_ROUND
        | {
            "packing_format": "auto_round:gptqmodel",
            "extra_config": {
                "lm_head": {"bits": 16}, "_proj": {"bits": 3}, "layers": {"bits": 2},
            },
        },
        q.gptq(version=2, bits=3, g_idx=False),
    ),
    "auto-round by module and by pattern": (
        AUTO_ROUND
        | {
            "packing_format": "auto_round:gptqmodel",
            "extra_config": {
                ".*": {"bits": 2}, "model.layers.0.mlp.down_proj": {"bits": 3},
                "model.layers.0.self_attn.k_proj": {"bits": 3},
            },
        },
        q.gptq(version=2, bits=3, g_idx=False),
    ),
    "auto-round as awq": (AUTO_ROUND | {"packing_format": "auto_round:auto_awq"}, q.awq()),
    "pack-quantized": (
        q.compressed("pack-quantized", num_bits=4, strategy="group", group_size=32),
        q.pack_quantized(),
    ),
    "pack-quantized by activations": (
        q.compressed(
            "pack-quantized", num_bits=4, strategy="group", group_size=32, actorder="group"
        ),
        q.pack_quantized(shuffled=True),
    ),
    "pack-quantized, zero points": (
        q.compressed(
            "pack-quantized", num_bits=4, strategy="group", group_size=32, symmetric=False
        ),
        q.pack_quantized(symmetric=False),
    ),
    "pack-quantized, zero points of 8 bits": (
        q.compressed(
            "pack-quantized", num_bits=4, strategy="group", group_size=32, symmetric=False
        ),
        q.pack_quantized(symmetric=False, packed_zeros=False),
    ),
    "pack-quantized of 8 bits in rows": (
        q.compressed("pack-quantized", strategy="channel"),
        q.pack_quantized(bits=8, group_size=-1),
    ),
    "int-quantized": (q.compressed("int-quantized", strategy="channel"), q.int_quantized()),
    "int-quantized, zero points": (
        q.compressed("int-quantized", strategy="channel", symmetric=False),
        q.int_quantized(symmetric=False),
    ),
    "float-quantized": (
        q.compressed("float-quantized", type="float", strategy="channel"), q.float8((1, 0)),
    ),
    "naive-quantized": (
        q.compressed("naive-quantized", type="float", strategy="tensor"),
        q.float8(None, scale_shape=lambda *_: (1,)),
    ),
    "float-quantized, zero points": (
        q.compressed("float-quantized", type="float", strategy="channel"),
        with_zeros(q.float8((1, 0)), torch.float8_e4m3fn),
    ),
    "float-quantized in blocks": (
        q.compressed(
            "float-quantized", type="float", strategy="block", block_structure=[32, 48]
        ),
        q.float8((32, 48)),
    ),
    "fp8 in blocks": (BLOCKS, q.float8((32, 48), scale_name="weight_scale_inv")),
    "fp8 in blocks, powers of two": (
        BLOCKS,
        q.float8((32, 48), scale_name="weight_scale_inv", dtype=torch.float8_e8m0fnu),
    ),
    "fp8 in a block beyond the matrix": (
        {"quant_method": "fp8", "weight_block_size": [2**70, 2**70]},
        q.float8((1024, 1024), scale_name="weight_scale_inv"),
    ),
    "fp8": ({"quant_method": "fp8"}, q.float8(None, scale_shape=lambda *_: ())),
    "fbgemm_fp8": ({"quant_method": "fbgemm_fp8"}, q.float8((1, 0), scale_shape=channels)),
    "nf4": (BNB | {"load_in_4bit": True}, q.four_bits()),
    "nf4, not nested": (BNB | {"load_in_4bit": True}, q.four_bits(nested=False)),
    "nf4 in bfloat16": (BNB | {"load_in_4bit": True}, q.four_bits(storage=torch.bfloat16)),
    "fp4": (BNB | {"load_in_4bit": True}, q.four_bits(kind="fp4")),
    "llm.int8": ({"load_in_8bit": True}, q.eight_bits()),
}  # fmt: skip


FEW = r"model\.layers\.0\.(self_attn\.k|mlp\.down)_proj\.weight"
"""Matrices [32, 64] and [64, 96]."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in floats, to be copied."""
    folder = tmp_path_factory.mktemp("plain") / "source"
    save_tiny(folder, CONFIGS["llama"]())
    return folder


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "source"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_what_the_format_says(variant: str, folder: Path) -> None:
    config, quantiser = VARIANTS[variant]
    wanted = q.save_quantised(folder, config, quantiser, FEW)
    found = read_checkpoint(folder)
    assert found is not None
    assert found.shapes == {name: tuple(weight.shape) for name, weight in wanted.items()}
    for name, weight in wanted.items():
        assert torch.equal(found.state[name].to("cpu"), weight), name
        assert found.state[name].shape == weight.shape, name


@pytest.mark.parametrize("variant", ["gptq by activations", "nf4", "fp8 in blocks"])
def test_the_model_has_these_weights_and_no_others(
    variant: str, folder: Path, tmp_path: Path
) -> None:
    wanted = q.save_quantised(folder, *VARIANTS[variant])
    source = resolve(str(folder), tmp_path / "work")
    with WeightFile(tmp_path / "weights.bin") as weights:
        model = load_model(source, weights)
        loaded = dict(model.named_parameters())
        assert loaded.keys() == wanted.keys()
        for name, weight in wanted.items():
            assert torch.equal(loaded[name], weight), name
        assert all(isinstance(m, nn.Linear) for n, m in model.named_modules() if "proj" in n)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_bias_that_the_model_has_not_is_left_out_if_it_is_zero(
    value: float, folder: Path, tmp_path: Path
) -> None:
    q.save_quantised(folder, *VARIANTS["gptq"], FEW)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.bias"] = torch.full([64], value)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    source = resolve(str(folder), tmp_path / "work")
    with WeightFile(tmp_path / "weights.bin") as weights:
        if value:
            with pytest.raises(SourceUnusable, match=r"have .*down_proj\.bias, which the model"):
                load_model(source, weights)
        else:
            load_model(source, weights)


def test_experts_one_by_one_are_read_as_any_other_weight(tmp_path: Path) -> None:
    save_tiny(tmp_path / "source", MIXTURES["qwen3-moe"]())
    experts = r".*layers\.1\.mlp\.experts\.\d\.down_proj\.weight"
    wanted = q.save_quantised(tmp_path / "source", *VARIANTS["fp8 in blocks"], experts)
    source = resolve(str(tmp_path / "source"), tmp_path / "work")
    with WeightFile(tmp_path / "weights.bin") as weights:
        loaded = dict(load_model(source, weights).named_parameters())
        assert loaded.keys() == wanted.keys()
        assert all(torch.equal(loaded[name], weight) for name, weight in wanted.items())


@pytest.mark.parametrize("where", ["whole", "text", "both"])
def test_the_text_model_in_a_quantised_one_that_reads_images_is_read(
    where: str, tmp_path: Path
) -> None:
    save_whole(gemma3(), tmp_path / "source")
    chosen = r".*language_model.*down_proj\.weight"
    wanted = q.save_quantised(tmp_path / "source", *VARIANTS["awq"], chosen)
    config = json.loads((tmp_path / "source" / "config.json").read_text())
    if where != "whole":
        config["text_config"]["quantization_config"] = config["quantization_config"]
    if where == "text":
        del config["quantization_config"]
    (tmp_path / "source" / "config.json").write_text(json.dumps(config))
    source = resolve(str(tmp_path / "source"), tmp_path / "work")
    with WeightFile(tmp_path / "weights.bin") as weights:
        loaded = dict(load_model(source, weights).named_parameters())
        for name, weight in loaded.items():
            assert torch.equal(weight, wanted[f"language_model.{name}"]), name


def test_an_export_is_measured_against_the_numbers_that_were_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    q.save_quantised(folder, *VARIANTS["gptq"])
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.source == f"folder {folder}, dequantised from gptq"
    assert manifest.quality.mean_kl < 0.02
    assert manifest.quantisation.scheme in ("w8a8", "int8")
    said = capsys.readouterr().out
    assert "dequantised from gptq, takes up to" in said


@pytest.mark.parametrize("method", ["fp8", "compressed-tensors"])
def test_listing_very_many_weights_takes_little_memory(method: str, tmp_path: Path) -> None:
    """Which scale each number has is found when a weight is read: 420 MB for 18,432 experts."""
    stored = {}
    for n in range(1_000):
        name = f"model.layers.0.mlp.experts.{n}.down_proj.weight"
        stored[name] = StoredTensor(tmp_path, "F8_E4M3", (2048, 768))
        stored[f"{name}_scale"] = StoredTensor(tmp_path, "F32", (2048, 1))
    config = q.compressed("float-quantized", type="float", strategy="channel")
    find = {"fp8": fp8.find, "compressed-tensors": compressed.find}[method]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        weights = list(find(Tensors(tmp_path, stored), config))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(weights) == 1_000
    assert after - before < 4_000_000


@pytest.mark.parametrize("method", ["auto-round", "gptq"])
def test_settings_of_very_many_modules_are_found_at_once(method: str, tmp_path: Path) -> None:
    """As they are written for each expert of a large mixture; trying each took minutes."""
    names = [f"model.layers.{n // 256}.mlp.experts.{n % 256}.down_proj" for n in range(6_000)]
    shapes = {"qweight": (4, 8), "qzeros": (1, 1), "scales": (1, 8)}
    stored = {
        f"{name}.{end}": StoredTensor(tmp_path, "F16" if end == "scales" else "I32", shape)
        for name in names
        for end, shape in shapes.items()
    }
    own = {"bits": 4, "group_size": 32}
    by_name = {"packing_format": "auto_round", "extra_config": dict.fromkeys(names, own)}
    by_pattern = {"dynamic": {f"+:^{re.escape(name)}$": own for name in names}}
    config = {"auto-round": AUTO_ROUND | by_name, "gptq": GPTQ | {"bits": 8} | by_pattern}[method]
    find = {"auto-round": auto_round.find, "gptq": gptq.find}[method]
    began = time.process_time()
    assert len(list(find(Tensors(tmp_path, stored), config))) == len(names)
    assert time.process_time() - began < 8


@pytest.mark.parametrize(
    ("where", "expressions", "first"),
    [
        ("beginning", ["a.b$", r"a\.bc$", r"^a\.b$", ".*"], "a.b$"),
        ("beginning", [r"a\.bc$", r"^a\.b$", ".*"], r"^a\.b$"),
        ("beginning", [".*", r"^a\.b$"], ".*"),
        ("beginning", ["b", r"a\.b$"], r"a\.b$"),
        ("beginning", ["b", "a"], "a"),
        ("anywhere", ["c", "b", r"^a\.b$"], "b"),
        ("anywhere", ["^b", r"\.b$", r"^a\.b$"], r"\.b$"),
        ("anywhere", ["(?i)C", r"^a\.b$", "b"], r"^a\.b$"),
        ("anywhere", ["c"], None),
    ],
)
def test_the_first_pattern_counts_whether_it_is_a_name_or_not(
    where: Any, expressions: list[str], first: str | None, tmp_path: Path
) -> None:
    named = dict(zip(expressions, expressions, strict=True))
    assert Patterns(Tensors(tmp_path, {}), "dynamic", named, where).first("a.b") == first
