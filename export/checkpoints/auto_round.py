"""Read weights as AutoRound stores them, in GPTQ's layout or in AWQ's.

Knows which of them a `packing_format` is, and what AutoRound calls their settings.

Source: the lists of formats in auto_round/inference/backend.py of AutoRound, and in
convert_model.py beside it which settings a module has.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from export.checkpoints import awq, gptq
from export.checkpoints.patterns import Patterns
from export.checkpoints.tensors import Tensors, Weight

LAYOUTS: Final[Mapping[str, str]] = {
    "auto_round": gptq.SECOND,
    "auto_round:gptqmodel": gptq.SECOND,
    "auto_round:auto_gptq": gptq.FIRST,
    "auto_round:gptq": gptq.FIRST,
    "auto_round:auto_awq": "awq",
    "auto_round:awq": "awq",
}
"""By `packing_format`."""


class _Config(msgspec.Struct, frozen=True):
    packing_format: str | None = None
    bits: int = 4
    group_size: int = 128
    extra_config: dict[str, dict[str, Any]] | None = None
    """Settings of modules, by name or by a regular expression."""


def find(tensors: Tensors, config: Mapping[str, Any]) -> Iterator[Weight]:
    """The quantised weights of a checkpoint.

    Raises:
        SourceUnusable: a tensor is missing or of another shape, or a setting can't be read.
    """
    settings = tensors.settings(config, _Config)
    tensors.refuse_unless("packing_format", settings.packing_format, tuple(LAYOUTS))
    layout = LAYOUTS[str(settings.packing_format)]
    told = {"bits": settings.bits, "group_size": settings.group_size}
    if layout == "awq":
        return awq.find(tensors, told)
    own = _own_settings(tensors, settings.extra_config or {})
    return gptq.find_by_module(tensors, {**told, "format": layout}, own)


def _own_settings(
    tensors: Tensors, extra_config: Mapping[str, Mapping[str, Any]]
) -> Callable[[str], Mapping[str, Any]]:
    """Settings by the name of a module: those under its name, or the first pattern found in it."""
    modules = {name.rpartition(".")[0] for name in tensors.stored}
    expressions = {w: w for w, changes in extra_config.items() if w not in modules and changes}
    patterns = Patterns(tensors, "extra_config", expressions, "anywhere")

    def own_settings(module: str) -> Mapping[str, Any]:
        if module in extra_config:
            return extra_config[module]
        return extra_config.get(patterns.first(module) or "", {})

    return own_settings
