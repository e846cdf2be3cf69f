"""Read weights in GPTQ's layout, as AutoGPTQ and GPTQModel write it.

Of a module with K inputs and N outputs `qweight` has the codes, packed along the inputs, and
`scales` and `qzeros` one scale and zero point for each group of inputs and each output; zero points
are packed along the outputs, less one in the first version of the format. `g_idx` says which group
an input is in, where they were sorted by activation. Knows the layout alone.

Source: AutoGPTQ's QuantLinear, and convert_gptq_v1_to_v2_format of GPTQModel.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from export.checkpoints.matrix import Array, Grid, dequantise, unpack
from export.checkpoints.tensors import FLOATS, Tensors, Weight
from export.file_checks import refusing, shown

BITS: Final = (2, 3, 4, 8)
FIRST: Final = "gptq"
SECOND: Final = "gptq_v2"


class _Config(msgspec.Struct, frozen=True):
    bits: int
    group_size: int = -1
    format: str | None = None
    checkpoint_format: str | None = None
    """The older name of `format`."""
    dynamic: dict[str, dict[str, Any]] | None = None
    """Settings of modules whose names begin with a regular expression."""

    @property
    def version(self) -> str:
        """Of the format; the first one if neither name says it."""
        return self.format or self.checkpoint_format or FIRST


def find(tensors: Tensors, config: Mapping[str, Any]) -> Iterator[Weight]:
    """The quantised weights of a checkpoint.

    Raises:
        SourceUnusable: a tensor is missing or of another shape, or a setting can't be read.
    """
    settings = tensors.settings(config, _Config)
    named = "checkpoint_format" if settings.format is None else "format"
    tensors.refuse_unless(named, settings.version, (FIRST, SECOND))
    if settings.checkpoint_format not in (None, settings.version):
        raise tensors.unusable(
            f"quantization_config.format is {shown(settings.format)}, but checkpoint_format is "
            f"{shown(settings.checkpoint_format)}"
        )
    for module in tensors.modules("qweight", "qzeros", "scales"):
        own = _settings_of(tensors, settings, module)
        tensors.refuse_unless("bits", own.bits, BITS)
        yield _weight(tensors, own, module)


def _settings_of(tensors: Tensors, settings: _Config, module: str) -> _Config:
    for pattern, change in (settings.dynamic or {}).items():
        with refusing(f"{tensors.folder}: quantization_config.dynamic has {shown(pattern)}"):
            applies = re.match(pattern.removeprefix("+:"), module) is not None
        if applies and not pattern.startswith("-:"):
            return tensors.settings(msgspec.structs.asdict(settings) | change, _Config)
    return settings


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
