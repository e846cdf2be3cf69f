"""Read weights in GPTQ's layout, as AutoGPTQ and GPTQModel write it.

Of a module with K inputs and N outputs `qweight` has the codes, packed along the inputs, and
`scales` and `qzeros` one scale and zero point for each group of inputs and each output; zero points
are packed along the outputs, less one in the first version of the format. `g_idx` says which group
an input is in, where they were sorted by activation. Knows the layout alone.

Source: AutoGPTQ's QuantLinear, and convert_gptq_v1_to_v2_format of GPTQModel.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from export.checkpoints.matrix import Array, Grid, dequantise, unpack
from export.checkpoints.patterns import Patterns
from export.checkpoints.tensors import FLOATS, Tensors, Weight
from export.file_checks import shown

BITS: Final = (2, 3, 4, 8)
FIRST: Final = "gptq"
SECOND: Final = "gptq_v2"
EXCEPT: Final = "-:"
"""Before the regular expression of modules that are not quantised."""


class _Config(msgspec.Struct, frozen=True):
    bits: int
    group_size: int = -1
    format: str | None = None
    checkpoint_format: str | None = None
    """The older name of `format`."""

    @property
    def version(self) -> str:
        """Of the format; the first one if neither name says it."""
        return self.format or self.checkpoint_format or FIRST


class _Dynamic(msgspec.Struct, frozen=True):
    dynamic: dict[str, dict[str, Any]] | None = None
    """Settings of modules whose names begin with a regular expression; the first one counts."""


def find(tensors: Tensors, config: Mapping[str, Any]) -> Iterator[Weight]:
    """The quantised weights of a checkpoint.

    Raises:
        SourceUnusable: a tensor is missing or of another shape, or a setting can't be read.
    """
    dynamic = tensors.settings(config, _Dynamic).dynamic or {}
    expressions = {written: written.removeprefix(EXCEPT).removeprefix("+:") for written in dynamic}
    patterns = Patterns(tensors, "dynamic", expressions, "beginning")

    def own_settings(module: str) -> Mapping[str, Any]:
        applied = patterns.first(module)
        if applied is None:
            return {}
        if applied.startswith(EXCEPT):
            raise tensors.unusable(
                f"quantization_config.dynamic has {shown(applied)}, but {module} is stored "
                "quantised"
            )
        return dynamic[applied]

    return find_by_module(tensors, config, own_settings)


def find_by_module(
    tensors: Tensors, config: Mapping[str, Any], own_settings: Callable[[str], Mapping[str, Any]]
) -> Iterator[Weight]:
    """The quantised weights of a checkpoint whose modules may have settings of their own.

    Args:
        tensors: of the checkpoint.
        config: the settings of all others.
        own_settings: by the name of a module, what is different for it.

    Raises:
        SourceUnusable: a tensor is missing or of another shape, or a setting can't be read.
    """
    settings = tensors.settings(config, _Config)
    _check_version(tensors, settings)
    for module in tensors.modules("qweight", "qzeros", "scales"):
        own, changes = settings, own_settings(module)
        if changes:
            own = tensors.settings(msgspec.structs.asdict(settings) | {**changes}, _Config)
            _check_version(tensors, own, f" for {module}")
        tensors.refuse_unless("bits", own.bits, BITS)
        yield _weight(tensors, own, module)


def _check_version(tensors: Tensors, settings: _Config, whose: str = "") -> None:
    """Refuse a version of the format that can't be read, or two of them.

    Args:
        tensors: of the checkpoint.
        settings: of all of its modules, or one.
        whose: says which one.
    """
    named = "checkpoint_format" if settings.format is None else "format"
    tensors.refuse_unless(named + whose, settings.version, (FIRST, SECOND))
    if settings.checkpoint_format not in (None, settings.version):
        raise tensors.unusable(
            f"quantization_config.format{whose} is {shown(settings.format)}, but "
            f"checkpoint_format is {shown(settings.checkpoint_format)}"
        )


def _weight(tensors: Tensors, settings: _Config, module: str) -> Weight:
    qweight, qzeros, scales, g_idx = (
        f"{module}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx")
    )
    bits = settings.bits
    words, rows = tensors.shape(qweight, ["I32"])
    ordered = g_idx in tensors.stored
    columns = tensors.shape(g_idx, ["I32", "I64"], 1)[0] if ordered else 32 * words // bits
    groups = -(-columns // tensors.group_size(settings.group_size, columns))
    tensors.expect(qweight, ["I32"], (-(-columns * bits // 32), rows))
    tensors.expect(scales, FLOATS, (groups, rows))
    tensors.expect(qzeros, ["I32"], (groups, -(-rows * bits // 32)))

    def numbers() -> Any:
        packed = tensors.integers(qweight)
        zero_points = unpack(tensors.integers(qzeros), bits, rows)
        if settings.version == FIRST:
            zero_points = zero_points + np.uint8(1) & np.uint8(2**bits - 1)
        if ordered:
            group_of = groups_of(tensors, g_idx, groups)
        else:
            group_of = np.arange(columns) // tensors.group_size(settings.group_size, columns)
        return dequantise(
            lambda start, end: unpack(packed[:, start:end].T, bits, columns),
            Grid(np.arange(rows), group_of),
            tensors.floats(scales).T,
            zero_points.T,
        )

    parts = (qweight, qzeros, scales, *([g_idx] if ordered else []))
    return Weight(f"{module}.weight", (rows, columns), parts, numbers)


def groups_of(tensors: Tensors, name: str, groups: int) -> Array:
    """Which of some groups each column is in, as a tensor says.

    Raises:
        SourceUnusable: it names another.
    """
    found = tensors.integers(name)
    if found.min() < 0 or found.max() >= groups:
        raise tensors.unusable(
            f"{name} has {found.min()} … {found.max()}, expected 0 … {groups - 1}"
        )
    return found
