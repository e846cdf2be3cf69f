"""Read weights in floats of 8 bits, with a scale for all of a matrix, for each row or each block.

`weight` has the floats, `weight_scale_inv` or `weight_scale` what they are multiplied by. Covers
`fp8` as DeepSeek and Qwen publish it (blocks), as others do (one scale), and `fbgemm_fp8` (rows).
Knows the layout alone.

Source: the quantizers finegrained_fp8 and fbgemm_fp8 of Transformers.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from export.checkpoints.matrix import Grid, bytes_of, dequantise
from export.checkpoints.tensors import FLOAT8, FLOATS, Tensors, Weight

SCALES: Final = ("weight_scale_inv", "weight_scale")
"""Of which the first is no inverse either."""
SCALE_DTYPES: Final = (*FLOATS, "F8_E8M0")


class _Config(msgspec.Struct, frozen=True):
    weight_block_size: tuple[int, int] | None = None


def find(tensors: Tensors, config: Mapping[str, Any]) -> Iterator[Weight]:
    """The quantised weights of a checkpoint.

    Raises:
        SourceUnusable: a tensor is missing or of another shape, or a setting can't be read.
    """
    block = tensors.settings(config, _Config).weight_block_size
    if block is not None and min(block) < 1:
        raise tensors.unusable(
            f"quantization_config.weight_block_size is {[*block]}, expected ints >= 1"
        )
    for module in dict.fromkeys(tensors.stored_in(*FLOAT8) + tensors.modules(*SCALES)):
        there = [f"{module}.{name}" for name in SCALES if f"{module}.{name}" in tensors.stored]
        scale = there[0] if there else f"{module}.{SCALES[block is None]}"
        yield _weight(tensors, module, scale, block)


def _weight(tensors: Tensors, module: str, scale: str, block: tuple[int, int] | None) -> Weight:
    """A module's weight; without blocks the shape of its scales says what shares one."""
    name = f"{module}.weight"
    rows, columns = tensors.shape(name, FLOAT8)
    kinds = {(): (rows, columns), (1,): (rows, columns), (1, 1): (rows, columns)}
    kinds |= {(rows,): (1, columns), (rows, 1): (1, columns)}
    if block is not None:
        block = min(block[0], rows), min(block[1], columns)
        kinds = {(-(-rows // block[0]), -(-columns // block[1])): block}
    found = tensors.expect(scale, SCALE_DTYPES, *kinds)
    across = found[1] if len(found) == 2 else 1

    def numbers() -> Any:
        return dequantise(
            bytes_of(tensors.read(name)),
            Grid.of_blocks((rows, columns), kinds[found]),
            tensors.floats(scale).reshape(math.prod(found) // across, across),
        )

    return Weight(name, (rows, columns), (name, scale), numbers)
