"""Read a folder whose weights are quantised as if they were stored in floats.

What Transformers loads is listed without being read; each weight is made when it is asked for, and
nothing of it is kept. Knows which methods there are, not their layouts.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from export.checkpoints import auto_round, awq, bitsandbytes, compressed, fp8, gptq
from export.checkpoints.tensors import FLOAT8, Shape, Tensors, Weight
from export.errors import SourceUnusable
from export.file_checks import read_object, shown
from export.folder import CONFIG, stored_tensors

READERS: Final[Mapping[str, Callable[[Tensors, Mapping[str, Any]], Iterator[Weight]]]] = {
    "auto-round": auto_round.find,
    "awq": awq.find,
    "bitsandbytes": bitsandbytes.find,
    "compressed-tensors": compressed.find,
    "fbgemm_fp8": fp8.find,
    "fp8": fp8.find,
    "gptq": gptq.find,
}
"""By `quant_method`."""
MXFP4: Final = "mxfp4"
"""What `export/mxfp4.py` reads, expert by expert."""
KEPT: Final = ("modules_to_not_convert", "ignored_layers", "ignore", "llm_int8_skip_modules")
"""Settings that name modules whose weights are not quantised."""
PATTERN: Final = "re:"
OF_ACTIVATIONS: Final = re.compile(
    r".*\.((input|output|activation|[kqv]|kv|prob)_scale|input_scale_ub|(input|output)_zero_point"
    r"|input_global_scale)"
)
"""Names of tensors that say how inputs, outputs or the cache are to be quantised."""


class _Unread:
    """Stands for a tensor where Transformers lists what there is; `to` reads it."""

    def __init__(self, shape: Shape, dtype: torch.dtype, read: Callable[[], torch.Tensor]) -> None:
        self.shape = torch.Size(shape)
        self.dtype = dtype
        """Float32 for all floats: they are converted when they are loaded."""
        self._read = read

    def to(self, _device: object) -> torch.Tensor:
        """The tensor."""
        return self._read()


@dataclass(frozen=True)
class Checkpoint:
    """A folder's weights, of which some are quantised."""

    shapes: Mapping[str, Shape]
    """Of the weights that a model has, by name."""
    state: Mapping[str, Any]
    """Stands for the state that a model is loaded from."""
    modules: frozenset[str]
    """Whose weights are quantised."""

    def is_nothing(self, name: str) -> bool:
        """Whether a tensor is a bias of zeros, which AutoGPTQ gives to layers that have none."""
        module = name.removesuffix(".bias")
        return module != name and module in self.modules and not self.state[name].to("cpu").any()


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Look at a folder's weights; None if they are not quantised, or in MXFP4.

    Raises:
        SourceUnusable: they are quantised by a method that can't be read, or a part of one of them
            is missing or of another shape.
    """
    config, method = _config_of(folder), method_of(folder)
    if config is None or method is None or method == MXFP4:
        return None
    stored = stored_tensors(folder)
    if stored is None:
        raise SourceUnusable(f"{folder}: its weights are quantised by {method} and pickled")
    tensors = Tensors(folder, stored)
    weights = list(READERS[method](tensors, config))
    if not weights:
        raise tensors.unusable(
            f"quantization_config.quant_method is {shown(method)}, but no weight is stored so"
        )
    _refuse_kept(tensors, config, weights)
    return _joined(tensors, weights)


def method_of(folder: Path) -> str | None:
    """By which method a folder's weights are quantised; None: they are not.

    Raises:
        SourceUnusable: by one that can't be read.
    """
    config = _config_of(folder)
    if config is None:
        return None
    method = config.get("quant_method")
    if method is None and (config.get("load_in_4bit") or config.get("load_in_8bit")):
        method = "bitsandbytes"
    if method == MXFP4 or (isinstance(method, str) and method in READERS):
        return str(method)
    raise SourceUnusable(
        f"{folder}: quantization_config.quant_method is {shown(method)}, which can't be read; "
        f"expected one of {', '.join(sorted([*READERS, MXFP4]))}"
    )


def _config_of(folder: Path) -> Mapping[str, Any] | None:
    """The settings of the method, which may be the text model's in a model that reads more."""
    whole = read_object(folder / CONFIG)
    text = whole.get("text_config")
    found = {
        f"{where}quantization_config": part["quantization_config"]
        for where, part in (("", whole), ("text_config.", text))
        if isinstance(part, dict) and part.get("quantization_config") is not None
    }
    for name, config in found.items():
        if not isinstance(config, dict):
            raise SourceUnusable(f"{folder}: {name} is {shown(config)}, expected an object")
    first = next(iter(found.values()), None)
    if any(config != first for config in found.values()):
        raise SourceUnusable(f"{folder}: {' and '.join(found)} differ")
    return first


def _joined(tensors: Tensors, weights: Sequence[Weight]) -> Checkpoint:
    """Weights in place of the tensors that they are made of."""
    shapes: dict[str, Shape] = {}
    state: dict[str, _Unread] = {}
    parts = {part for weight in weights for part in weight.parts}
    for name, tensor in tensors.stored.items():
        if name in parts or OF_ACTIVATIONS.fullmatch(name):
            continue
        floats = "F" in tensor.dtype
        if tensor.dtype in FLOAT8 or (name.endswith(".weight") and not floats):
            raise tensors.unusable(f"{name} is {tensor.dtype} without a scale")
        kind = torch.float32 if floats else torch.int64
        shapes[name] = tensor.shape
        state[name] = _Unread(tensor.shape, kind, partial(tensors.read, name))
    for weight in weights:
        if weight.name in shapes:
            raise tensors.unusable(f"{weight.name} is stored twice: as it is, and quantised")
        shapes[weight.name] = weight.shape
        state[weight.name] = _Unread(weight.shape, torch.float32, weight.numbers)
    return Checkpoint(shapes, state, frozenset(weight.module for weight in weights))


def _refuse_kept(tensors: Tensors, config: Mapping[str, Any], weights: Iterable[Weight]) -> None:
    """Refuse quantised weights of modules that the configuration says are none of them."""
    for setting in KEPT:
        named = config.get(setting)
        names = {str(name) for name in named} if isinstance(named, list) else set()
        patterns = {
            name: tensors.pattern(setting, name, name.removeprefix(PATTERN))
            for name in sorted(names)
            if name.startswith(PATTERN)
        }
        for weight in weights if names else []:
            kept = next(_naming(weight.module, names, patterns), None)
            if kept is not None:
                raise tensors.unusable(
                    f"quantization_config.{setting} has {shown(kept)}, but {weight.module} is "
                    "stored quantised"
                )


def _naming(module: str, names: Set[str], patterns: Mapping[str, re.Pattern[str]]) -> Iterator[str]:
    """Which of some names and patterns a module has, or one that it is in."""
    parts = module.split(".")
    within = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    yield from (name for name in within if name in names)
    yield from (name for name, pattern in patterns.items() if pattern.match(module))
