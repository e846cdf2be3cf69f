"""A LoRA adapter is merged as PEFT would apply it, or refused."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from app.manifest import read_manifest
from export.__main__ import main
from export.source import resolve
from export.torch_model import load_model
from export.weight_file import WeightFile
from tests.export.refusals import refusal
from tests.export.tiny import CONFIGS, VOCAB, save_tiny
from tests.export.tiny_adapters import Tensors, factors, write_adapter

RANK = 4
MODULES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")


def logits(model: Any) -> torch.Tensor:
    ids = torch.randint(0, VOCAB, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(input_ids=ids, use_cache=False).logits[0]


def beside_the_weights(model: Any, tensors: Tensors, scales: dict[str, float]) -> torch.Tensor:
    """The same as a second path beside each module, nothing merged."""
    for name, first in tensors.items():
        if ".lora_A." in name:
            module = name.removeprefix("base_model.model.").partition(".lora_A")[0]
            second = tensors[name.replace("lora_A", "lora_B")]
            scale = next(scale for end, scale in scales.items() if module.endswith(end))

            def add(_module, inputs, output, first=first, second=second, scale=scale):  # type: ignore[no-untyped-def]
                return output + scale * (inputs[0] @ first.T @ second.T)

            model.get_submodule(module).register_forward_hook(add)
    return logits(model)


PATTERNS = {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {r"layers\.\d+\.mlp\.down_proj": 10}}


@pytest.mark.parametrize(
    ("config", "ranks", "scales"),
    [
        ({}, {}, {"": 6 / RANK}),
        ({"use_rslora": True}, {}, {"": 6 / math.sqrt(RANK)}),
        (PATTERNS, {"mlp.down_proj": 2}, {"down_proj": 10 / 2, "": 6 / RANK}),
        ({"bias": "none", "use_dora": False, "modules_to_save": []}, {}, {"": 6 / RANK}),
        ({"fan_in_fan_out": True}, {}, {"": 6 / RANK}),  # the modules say otherwise, and count
    ],
)
def test_merged_is_what_it_gives_beside_the_weights(
    config: dict[str, Any], ranks: dict[str, int], scales: dict[str, float], tmp_path: Path
) -> None:
    model = save_tiny(tmp_path / "base", CONFIGS["llama"]())
    tensors = factors(model, MODULES, RANK, ranks=ranks)
    adapter = write_adapter(tmp_path / "adapter", tensors, **config)
    without = logits(model)
    wanted = beside_the_weights(model, tensors, scales)
    assert (wanted - without).abs().max() > 0.1, "an adapter that changes nothing proves nothing"
    with WeightFile(tmp_path / "weights.bin") as weights:
        found = logits(load_model(resolve(str(adapter), tmp_path / "work"), weights))
    assert torch.allclose(found, wanted, atol=2e-4), (found - wanted).abs().max()


def test_adapter_is_exported_with_its_model(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "base", CONFIGS["llama"]())
    adapter = write_adapter(tmp_path / "my-adapter", factors(model, MODULES, RANK))
    assert main([str(adapter), "--out", str(tmp_path / "out")]) == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.model_id == "local/my-adapter"
    assert manifest.source == (
        f"folder {tmp_path / 'my-adapter' / '../base'} with the adapter of folder {adapter}"
    )
    assert manifest.quality.mean_kl < 0.01


def without(tensors: Tensors, name: str) -> Tensors:
    return {key: tensor for key, tensor in tensors.items() if name not in key}


@pytest.mark.parametrize(
    ("config", "change", "said"),
    [
        ({"peft_type": "IA3"}, None, "peft_type is 'IA3', which can't be used; only 'LORA'"),
        ({"use_dora": True}, None, "use_dora is True, which can't be used; only False"),
        ({"bias": "all"}, None, "bias is 'all', which can't be used; only 'none'"),
        (
            {"modules_to_save": ["lm_head"]},
            None,
            "modules_to_save is ['lm_head'], which can't be used; only None",
        ),
        ({"lora_alpha": "x"}, None, "lora_alpha is 'x', expected a number"),
        (
            {"base_model_name_or_path": None},
            None,
            "base_model_name_or_path is None, expected a folder or a name",
        ),
        (
            {},
            {"a.new.tensor": torch.ones(1)},
            "a.new.tensor is neither lora_A nor lora_B of a module",
        ),
        (
            {},
            {f"base_model.model.model.layers.9.x.lora_{s}.weight": torch.ones(1, 1) for s in "AB"},
            "model.layers.9.x is no module of the model",
        ),
        (
            {},
            {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(4, 64)},
            "model.layers.0.mlp.up_proj has lora_A alone",
        ),
        (
            {},
            {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(4, 9)},
            "model.layers.0.self_attn.q_proj has [64, 4] × [4, 9], its weight [64, 64]",
        ),
    ],
)
def test_adapter_that_can_not_be_merged_is_refused(
    config: dict[str, Any],
    change: Tensors | None,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = save_tiny(tmp_path / "base", CONFIGS["llama"]())
    adapter = write_adapter(
        tmp_path / "adapter", factors(model, MODULES, RANK) | (change or {}), **config
    )
    assert refusal(adapter, tmp_path / "models", capsys).endswith(said)


def test_a_weight_that_two_modules_share_is_not_changed_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny(tmp_path / "base", CONFIGS["llama-3-rope"]())
    rows, columns = model.lm_head.weight.shape
    tensors = {
        "base_model.model.lm_head.lora_A.weight": torch.ones(RANK, columns),
        "base_model.model.lm_head.lora_B.weight": torch.ones(rows, RANK),
    }
    said = refusal(write_adapter(tmp_path / "adapter", tensors), tmp_path / "models", capsys)
    assert "lm_head shares its weight with another" in said
