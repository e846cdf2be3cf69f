"""Merge a LoRA adapter, as PEFT writes it, into the weights of its model.

Every tensor of the adapter must find its place: one that is left over would be a part of the
adapter that is silently missing. What LoRA alone doesn't say (DoRA, whole modules beside it, other
methods) is refused by name. Knows torch models, not where they come from.

Source: LoraConfig and LoraLayer.get_delta_weight of PEFT.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

from export.errors import SourceUnusable
from export.file_checks import read_object, refuse_stand_in, refusing, shown

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
PREFIX: Final = "base_model.model."
PAIR: Final = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.\w+)?\.weight")
"""The two factors of a module's change; older files name the adapter behind the side."""
OTHERWISE: Final[Mapping[str, object]] = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "modules_to_save": None,
    "lora_bias": False,
    "megatron_config": None,
}
"""What a configuration must say, or not say at all."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model beside it."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").exists()


def base_of(folder: Path) -> str:
    """The model that the adapter is for: a folder, or a name on the Hub.

    Raises:
        SourceUnusable: the configuration names none, or is of a kind that can't be merged.
    """
    config = _read_config(folder)
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise SourceUnusable(
            f"{folder / ADAPTER_CONFIG}: base_model_name_or_path is {shown(base)}, expected a "
            "folder or a name"
        )
    beside = folder / base
    return str(beside) if beside.is_dir() else base


@torch.no_grad()
def merge(folder: Path, model: torch.nn.Module) -> int:
    """Add each of the adapter's changes to the weight that it is for; returns their number.

    Raises:
        SourceUnusable: a tensor has no place in the model, or not the shape that it needs.
    """
    config, path = _read_config(folder), folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise SourceUnusable(f"{folder} has no {ADAPTER_WEIGHTS}")
    refuse_stand_in(path)
    with refusing(str(path)):
        tensors = load_file(path)
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = PAIR.fullmatch(name.removeprefix(PREFIX))
        if match is None:
            raise SourceUnusable(f"{path}: {name} is neither lora_A nor lora_B of a module")
        pairs.setdefault(match["module"], {})[match["side"]] = tensor.float()
    if not pairs:
        raise SourceUnusable(f"{path} has no tensors")
    for module, pair in sorted(pairs.items()):
        weight = _weight(path, model, module)
        if pair.keys() != {"A", "B"}:
            raise SourceUnusable(f"{path}: {module} has lora_{next(iter(pair))} alone")
        change = pair["B"] @ pair["A"] if _fit(pair) else None
        if change is not None and config.get("fan_in_fan_out"):
            change = change.T
        if change is None or change.shape != weight.shape:
            shapes = " × ".join(str([*pair[side].shape]) for side in "BA")
            raise SourceUnusable(f"{path}: {module} has {shapes}, its weight {[*weight.shape]}")
        rank = len(pair["A"])
        weight += (_scale(folder, config, module, rank) * change).to(weight.dtype)
    return len(pairs)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    config = read_object(path)
    for name, expected in OTHERWISE.items():
        value = config.get(name, expected)
        if value not in (expected, []):
            raise SourceUnusable(
                f"{path}: {name} is {shown(value)}, which can't be merged; only {shown(expected)}"
            )
    return config


def _weight(path: Path, model: torch.nn.Module, module: str) -> torch.Tensor:
    weight = dict(model.named_parameters(remove_duplicate=False)).get(f"{module}.weight")
    if weight is None:
        raise SourceUnusable(f"{path}: {module} is no module of the model")
    tied = [n for n, p in model.named_parameters(remove_duplicate=False) if p is weight]
    if len(tied) > 1:
        raise SourceUnusable(f"{path}: {module} shares its weight with another: {', '.join(tied)}")
    return weight


def _fit(pair: Mapping[str, torch.Tensor]) -> bool:
    first, second = pair["B"], pair["A"]
    return first.dim() == second.dim() == 2 and first.shape[1] == second.shape[0]


def _scale(folder: Path, config: Mapping[str, Any], module: str, rank: int) -> float:
    """What the product of the two factors is multiplied by."""
    alpha = _by_module(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
    if type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise SourceUnusable(
            f"{folder / ADAPTER_CONFIG}: lora_alpha is {shown(alpha)}, expected a number"
        )
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_module(patterns: object, module: str, otherwise: Any) -> Any:
    """A module's own value; patterns are the ends of modules' names, or regular expressions."""
    for pattern, value in (patterns if isinstance(patterns, dict) else {}).items():
        with refusing(f"the adapter's pattern {shown(pattern)}"):
            if re.fullmatch(rf"(.*\.)?({pattern})", module):
                return value
    return otherwise
