"""Read weights as the library compressed-tensors stores them.

Groups of modules have a scheme each: the kind of codes, and what shares a scale. `pack-quantized`
packs integers of a few bits into words along the inputs, less their smallest value; the three other
formats store integers or floats of 8 bits as they are. How activations are to be quantised is left
out: that is no part of the weights. Knows the layout alone.

Source: PackedQuantizationCompressor and NaiveQuantizationCompressor of compressed-tensors.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from export.checkpoints.gptq import groups_of
from export.checkpoints.matrix import Array, Codes, Grid, bytes_of, dequantise, unpack
from export.checkpoints.tensors import FLOAT8, FLOATS, Shape, Tensors, Weight
from export.file_checks import shown

PACKED: Final = "pack-quantized"
PLAIN: Final[Mapping[str, str | None]] = {
    "int-quantized": "int",
    "float-quantized": "float",
    "naive-quantized": None,
}
"""Formats whose codes are stored one by one, and their type; None: either."""
FORMATS: Final = (PACKED, *PLAIN)
STRATEGIES: Final = ("tensor", "channel", "group", "block")
PACKED_BITS: Final = (2, 4, 8)
"""Others are packed differently by older releases."""
ZERO_POINTS: Final = ("I8", "I32", *FLOATS, *FLOAT8)
"""Those of floats are zeros, which older releases store."""
PATTERN: Final = "re:"
LINEAR: Final = "Linear"
"""The class of all modules whose weights can be read; other classes have others' names."""
CLASS: Final = re.compile("[A-Z][A-Za-z0-9]*")
"""What a class is called, and no module."""


class _Codes(msgspec.Struct, frozen=True):
    """How weights are quantised."""

    num_bits: int = 8
    type: str = "int"
    symmetric: bool = True
    strategy: str | None = None
    group_size: int | None = None
    block_structure: tuple[int, int] | None = None


class _Scheme(msgspec.Struct, frozen=True):
    targets: list[str]
    weights: _Codes | None = None
    format: str | None = None


class _Config(msgspec.Struct, frozen=True):
    config_groups: dict[str, _Scheme]
    format: str = PACKED
    sparsity_config: dict[str, Any] | None = None
    transform_config: dict[str, Any] | None = None


def find(tensors: Tensors, config: Mapping[str, Any]) -> Iterator[Weight]:
    """The quantised weights of a checkpoint.

    Raises:
        SourceUnusable: a tensor is missing or of another shape, or a setting can't be read.
    """
    settings = tensors.settings(config, _Config)
    for name in ("sparsity_config", "transform_config"):
        value = getattr(settings, name) or {}
        if value.get("config_groups") or value.get("format", "dense") != "dense":
            raise tensors.unusable(f"quantization_config.{name} is set, which can't be read")
    for scheme in settings.config_groups.values():
        if scheme.weights is not None:
            _check(tensors, scheme.weights, scheme.format or settings.format)
    targets = _Targets(tensors, settings.config_groups.values())
    scaled = tensors.modules("weight_packed", "weight_scale")
    for module in dict.fromkeys(scaled + tensors.stored_in("I8", *FLOAT8)):
        scheme = targets.scheme_of(module)
        if scheme.weights is None:
            raise tensors.unusable(f"{module} is quantised, but its scheme has no weights")
        yield _weight(tensors, scheme.weights, scheme.format or settings.format, module)


def _check(tensors: Tensors, codes: _Codes, layout: str) -> None:
    """Refuse a scheme that can't be read."""
    tensors.refuse_unless("format", layout, FORMATS)
    tensors.refuse_unless("weights.strategy", codes.strategy, STRATEGIES)
    if layout == PACKED:
        tensors.refuse_unless("weights.num_bits", codes.num_bits, PACKED_BITS)
        tensors.refuse_unless("weights.type", codes.type, ("int",))
    else:
        kind = PLAIN[layout]
        tensors.refuse_unless("weights.type", codes.type, [kind] if kind else ["int", "float"])
        bits = (8,) if codes.type == "float" else range(1, 9)
        tensors.refuse_unless("weights.num_bits", codes.num_bits, bits)
    block = codes.block_structure or (0, 0)
    if codes.strategy == "block" and min(block) < 1:
        raise tensors.unusable(
            f"quantization_config.weights.block_structure is {shown(codes.block_structure)}, "
            "expected two ints >= 1"
        )


class _Targets:
    """Which scheme a module has: by its name, by a pattern, or by its class, which is Linear."""

    def __init__(self, tensors: Tensors, schemes: Collection[_Scheme]) -> None:
        self._tensors = tensors
        self._named: dict[str, _Scheme] = {}
        self._patterns: list[tuple[re.Pattern[str], _Scheme]] = []
        for scheme in schemes:
            for target in scheme.targets:
                if target.startswith(PATTERN):
                    expression = target.removeprefix(PATTERN)
                    pattern = tensors.pattern("targets", target, expression)
                    self._patterns.append((pattern, scheme))
                else:
                    self._named.setdefault(target, scheme)
                if CLASS.fullmatch(target) and target != LINEAR and scheme.weights is not None:
                    raise tensors.unusable(
                        f"quantization_config.targets has the class {shown(target)}, expected "
                        f"{LINEAR!r}, names or patterns of modules"
                    )

    def scheme_of(self, module: str) -> _Scheme:
        """The scheme of a module.

        Raises:
            SourceUnusable: it has none.
        """
        if module in self._named:
            return self._named[module]
        for pattern, scheme in self._patterns:
            if pattern.match(module):
                return scheme
        if LINEAR in self._named:
            return self._named[LINEAR]
        raise self._tensors.unusable(
            f"{module} is quantised, but no target of config_groups names it"
        )


def _weight(tensors: Tensors, codes: _Codes, layout: str, module: str) -> Weight:
    stored = f"{module}.weight_packed" if layout == PACKED else f"{module}.weight"
    scale, zero_point, g_idx, told = (
        f"{module}.weight_{part}" for part in ("scale", "zero_point", "g_idx", "shape")
    )
    parts = [stored, scale]
    if layout == PACKED:
        parts.append(told)
        shape = _packed_shape(tensors, stored, told, codes.num_bits)
    else:
        rows, columns = tensors.shape(stored, FLOAT8 if codes.type == "float" else ["I8"])
        shape = (rows, columns)
    block, shapes = _sharing(tensors, codes, shape)
    found = tensors.expect(scale, FLOATS, *shapes)
    across = found[1] if len(found) == 2 else 1
    ordered = g_idx in tensors.stored
    if ordered:
        tensors.expect(g_idx, ["I32", "I64"], (shape[1],))
        parts.append(g_idx)
    shifted = not codes.symmetric or zero_point in tensors.stored
    in_words = False
    if shifted:
        words = (-(-shape[0] * codes.num_bits // 32), across)
        may_pack = layout == PACKED and not codes.symmetric
        may_pack = may_pack and tensors.dtype(zero_point) == "I32"
        kept = tensors.expect(zero_point, ZERO_POINTS, *([words] if may_pack else []), found)
        in_words = may_pack and kept == words
        parts.append(zero_point)

    def zero_points() -> Array:
        if in_words:
            unpacked = unpack(tensors.integers(zero_point).T, codes.num_bits, shape[0])
            return _signed(unpacked, codes.num_bits).T
        return tensors.floats(zero_point).reshape(-1, across)

    def numbers() -> Any:
        used = Grid.of_blocks(shape, block)
        if ordered and tensors.integers(g_idx).min() >= 0:  # all -1: not ordered after all
            used = Grid(used.rows, groups_of(tensors, g_idx, across))
        return dequantise(
            _codes(tensors, stored, layout, codes.num_bits, shape[1]),
            used,
            tensors.floats(scale).reshape(-1, across),
            zero_points() if shifted else None,
        )

    return Weight(f"{module}.weight", shape, tuple(parts), numbers)


def _packed_shape(tensors: Tensors, name: str, told: str, bits: int) -> tuple[int, int]:
    """The shape of a packed matrix, which a tensor of its own says."""
    found = tensors.shape(name, ["I32"])
    tensors.expect(told, ["I32", "I64"], (2,))
    rows, columns = (int(n) for n in tensors.integers(told))
    if rows < 1 or columns < 1 or found != (rows, -(-columns * bits // 32)):
        raise tensors.unusable(
            f"{told} is {[rows, columns]}, which {[*found]} words of {name} don't fit"
        )
    return rows, columns


def _sharing(
    tensors: Tensors, codes: _Codes, shape: tuple[int, int]
) -> tuple[tuple[int, int], tuple[Shape, ...]]:
    """The rows and columns that share a scale, and the shapes that scales may have."""
    rows, columns = shape
    if codes.strategy == "tensor":
        return shape, ((), (1,), (1, 1))
    if codes.strategy == "channel":
        return (1, columns), ((rows, 1), (rows,))
    block = codes.block_structure
    if codes.strategy == "group" or block is None:
        block = (1, tensors.group_size(codes.group_size or 0, columns))
    return block, ((-(-rows // block[0]), -(-columns // block[1])),)


def _codes(tensors: Tensors, name: str, layout: str, bits: int, columns: int) -> Codes:
    if layout != PACKED:
        return bytes_of(tensors.read(name))
    packed = tensors.integers(name)
    return lambda start, end: _signed(unpack(packed[start:end], bits, columns), bits)


def _signed(codes: Array, bits: int) -> Array:
    return codes.astype(np.int16) - np.int16(1 << bits - 1)
