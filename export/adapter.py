"""What a LoRA adapter, as PEFT writes it, adds to a model, and merging that into the weights.

A module with the weight W gives W x + scale · B (A x). Every tensor of the adapter must find its
place: one that is left over would be a part of the adapter that is silently missing. What LoRA
alone doesn't say (DoRA, whole modules beside it, other methods) is refused by name. Knows torch
models, not where they come from, nor how a graph serves adapters (`grafts.py`).

Source: LoraConfig and LoraLayer.get_delta_weight of PEFT.
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from export.errors import SourceUnusable
from export.file_checks import read_object, refuse_stand_in, refusing, shown

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
PREFIX: Final = "base_model.model."
PAIR: Final = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<name>\w+))?\.weight")
"""The two factors of a module's change; older files name the adapter behind the side."""
OTHERWISE: Final[Mapping[str, object]] = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "modules_to_save": None,
    "lora_bias": False,
    "megatron_config": None,
    "target_parameters": None,
    "trainable_token_indices": None,
    "layer_replication": None,
    "alora_invocation_tokens": None,
    "use_qalora": False,
    "use_bdlora": None,
    "arrow_config": None,
    "kasa_config": None,
    "monteclora_config": None,
}
"""What a configuration must say, or not say at all."""
OTHER_BASES: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of the adapter that change the model's weights too: what was saved belongs to those,
and not to the model."""


@dataclass(frozen=True)
class Change:
    """What an adapter adds to one module."""

    first: Tensor
    """A, float32 [r, in]."""
    second: Tensor
    """B, float32 [out, r]."""
    scale: float

    @property
    def delta(self) -> Tensor:
        """What it adds to a weight [out, in]."""
        return self.scale * (self.second @ self.first)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that it fits, [out, in]; () if its factors don't fit each other."""
        a, b = self.first, self.second
        if not (a.dim() == b.dim() == 2 and b.shape[1] == a.shape[0]):
            return ()
        return b.shape[0], a.shape[1]


Changes = Mapping[str, Change]
"""By module."""


def has_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / ADAPTER_CONFIG).is_file()


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model beside it."""
    return has_adapter(folder) and not (folder / "config.json").exists()


def base_of(folder: Path) -> str:
    """The model that the adapter is for: a folder, or a name on the Hub.

    Raises:
        SourceUnusable: the configuration names none, or is of a kind that can't be used.
    """
    base = told_base(folder)
    if not base:
        raise SourceUnusable(
            f"{folder / ADAPTER_CONFIG}: base_model_name_or_path is {shown(base)}, expected a "
            "folder or a name"
        )
    beside = folder / base
    return str(beside) if beside.is_dir() else base


def told_base(folder: Path) -> str | None:
    """What the configuration says of the model that the adapter is for.

    Raises:
        SourceUnusable: the configuration is of a kind that can't be used.
    """
    base = _read_config(folder).get("base_model_name_or_path")
    return base if isinstance(base, str) else None


def read_changes(folder: Path) -> dict[str, Change]:
    """What an adapter adds to each module that it names.

    Raises:
        SourceUnusable: it can't be read, or says more than LoRA does.
    """
    config, path = _read_config(folder), folder / ADAPTER_WEIGHTS
    if not path.is_file():
        raise SourceUnusable(f"{folder} has no {ADAPTER_WEIGHTS}")
    refuse_stand_in(path)
    with refusing(str(path)):
        tensors = load_file(path)
    pairs: dict[str, dict[str, Tensor]] = {}
    names = set()
    for name, tensor in tensors.items():
        match = PAIR.fullmatch(name.removeprefix(PREFIX))
        if match is None:
            raise SourceUnusable(f"{path}: {name} is neither lora_A nor lora_B of a module")
        pairs.setdefault(match["module"], {})[match["side"]] = tensor.float()
        names.add(match["name"] or "")
    if len(names) > 1:
        raise SourceUnusable(f"{path} has tensors of several adapters: {shown(sorted(names))}")
    if not pairs:
        raise SourceUnusable(f"{path} has no tensors")
    changes = {}
    for module, pair in sorted(pairs.items()):
        if pair.keys() != {"A", "B"}:
            raise SourceUnusable(f"{path}: {module} has lora_{next(iter(pair))} alone")
        shape = [*pair["A"].shape]
        if len(shape) != 2 or not shape[0]:
            raise SourceUnusable(f"{path}: {module} has lora_A {shape}, expected [rank, inputs]")
        scale = _scale(folder, config, module, shape[0])
        changes[module] = Change(pair["A"], pair["B"], scale)
    return changes


def check_fit(folder: Path, changes: Changes, model: nn.Module) -> None:
    """Refuse an adapter that is for another model.

    Raises:
        SourceUnusable: a change has no place in the model, or not the shape that it needs.
    """
    path = folder / ADAPTER_WEIGHTS
    for module, change in changes.items():
        weight = _weight(path, model, module)
        if change.shape != weight.shape:
            shapes = " × ".join(str([*factor.shape]) for factor in (change.second, change.first))
            raise SourceUnusable(f"{path}: {module} has {shapes}, its weight {[*weight.shape]}")


@torch.no_grad()
def merge(folder: Path, model: nn.Module) -> None:
    """Add each of an adapter's changes to the weight that it is for.

    Raises:
        SourceUnusable: it can't be used, or is for another model.
    """
    changes = read_changes(folder)
    check_fit(folder, changes, model)
    for module, change in changes.items():
        weight = _weight(folder / ADAPTER_WEIGHTS, model, module)
        weight += change.delta.to(weight.dtype)


@contextmanager
def beside(model: nn.Module, changes: Changes) -> Iterator[None]:
    """Let a model compute with an adapter whose changes are not merged."""
    with ExitStack() as stack:
        for module, change in changes.items():

            def add(_: nn.Module, inputs: Any, output: Tensor, change: Change = change) -> Tensor:
                low = inputs[0].float() @ change.first.T
                changed: Tensor = change.scale * (low @ change.second.T)
                return output + changed.to(output.dtype)

            stack.enter_context(model.get_submodule(module).register_forward_hook(add))
        yield


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    config = read_object(path)
    for name, expected in OTHERWISE.items():
        value = config.get(name, expected)
        if value not in (expected, []):
            raise SourceUnusable(
                f"{path}: {name} is {shown(value)}, which can't be used; only {shown(expected)}"
            )
    began = config.get("init_lora_weights")
    if isinstance(began, str) and began.lower().startswith(OTHER_BASES):
        raise SourceUnusable(
            f"{path}: init_lora_weights is {shown(began)}, which changes the model's weights too; "
            "PEFT can save such an adapter converted to plain LoRA"
        )
    return config


def _weight(path: Path, model: nn.Module, module: str) -> Tensor:
    """A module's weight, [out, in]; GPT-2's own are [in, out].

    As with PEFT, the module decides and not `fan_in_fan_out`, which some write beside others.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    weight: Tensor | None = parameters.get(f"{module}.weight")
    if weight is None:
        raise SourceUnusable(f"{path}: {module} is no module of the model")
    tied = [name for name, parameter in parameters.items() if parameter is weight]
    if len(tied) > 1:
        raise SourceUnusable(f"{path}: {module} shares its weight with another: {', '.join(tied)}")
    return weight.T if isinstance(model.get_submodule(module), Conv1D) else weight


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
