"""gpt-oss as it is published: experts in MXFP4, which Transformers reads with a GPU alone."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig

from export.mxfp4 import numbers
from export.source import resolve
from export.torch_model import load_model
from export.weight_file import WeightFile
from tests.export.tiny import MIXTURES, save_tiny


def save_in_mxfp4(folder: Path, config: GptOssConfig) -> None:
    """Write a model whose experts have random codes."""
    save_tiny(folder, config)
    random = np.random.default_rng(0)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith(("gate_up_proj", "down_proj"))]:
        count, columns, rows = weights.pop(name).shape
        blocks = random.integers(0, 256, (count, rows, columns // 32, 16), np.uint8)
        exponents = random.integers(120, 126, blocks.shape[:-1], np.uint8)
        weights[f"{name}_blocks"] = torch.from_numpy(blocks)
        weights[f"{name}_scales"] = torch.from_numpy(exponents)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    written = json.loads((folder / "config.json").read_text())
    written["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": []}
    (folder / "config.json").write_text(json.dumps(written))


def test_a_block_is_a_power_of_two_times_four_bit_floats() -> None:
    codes = np.arange(32, dtype=np.uint8) % 16
    block = (codes[::2] | codes[1::2] << 4).reshape(1, 1, 16)
    found = numbers(block, np.array([[128]], np.uint8))
    magnitudes = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0]
    assert found.tolist() == [2 * [*magnitudes, *(-x for x in magnitudes)]]


def test_experts_in_mxfp4_are_what_transformers_makes_of_them(tmp_path: Path) -> None:
    save_in_mxfp4(tmp_path / "source", MIXTURES["gpt-oss"]())
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "source", dtype=torch.float32)
    source = resolve(str(tmp_path / "source"), tmp_path / "work")
    with WeightFile(tmp_path / "weights.bin") as weights:
        loaded = load_model(source, weights)
        size = weights.size
        ours = dict(loaded.named_parameters())
        assert set(ours) == {name for name, _ in theirs.named_parameters()}
        for name, wanted in theirs.named_parameters():
            assert torch.equal(ours[name], wanted.float()), name
            weights.place(ours[name])
        assert weights.size == size, "they were all there"
