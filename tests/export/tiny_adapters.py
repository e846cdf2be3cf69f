"""LoRA adapters with random numbers, large enough to change what a tiny model says."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
PREFIX = "base_model.model."


def factors(
    model: Any,
    modules: Collection[str],
    rank: int,
    *,
    ranks: Mapping[str, int] | None = None,
    seed: int = 1,
    transposed: bool = False,
) -> Tensors:
    """Factors for all modules whose names end so, under PEFT's names.

    `transposed`: the weights are [in, out], as GPT-2's are.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in model.named_modules():
        end = next((end for end in modules if name.endswith(end)), None)
        if end is None:
            continue
        shape = module.weight.shape[::-1] if transposed else module.weight.shape
        own = (ranks or {}).get(end, rank)
        for side, size in (("A", (own, shape[1])), ("B", (shape[0], own))):
            key = f"{PREFIX}{name}.lora_{side}.weight"
            tensors[key] = 0.3 * torch.randn(size, generator=generator)
    return tensors


def write_adapter(folder: Path, tensors: Tensors, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    named = {"peft_type": "LORA", "lora_alpha": 6, "base_model_name_or_path": "../base"}
    (folder / "adapter_config.json").write_text(json.dumps(named | config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@torch.no_grad()
def add_to_weights(model: Any, tensors: Tensors, scale: float) -> None:
    """W + scale · B A, as PEFT merges an adapter of one rank."""
    for name, first in tensors.items():
        if ".lora_A." in name:
            second = tensors[name.replace("lora_A", "lora_B")]
            module = name.removeprefix(PREFIX).partition(".lora_A")[0]
            model.get_submodule(module).weight += scale * (second @ first)
