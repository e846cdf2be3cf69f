"""Read weights in AWQ's layout, of which there is one for each kind of kernel: here GEMM's.

Of a module with K inputs and N outputs `qweight` [K, N / 8] has codes of 4 bits; the eight outputs
in a word come first the even, then the odd ones. `scales` and `qzeros` have one scale and zero
point for each group of inputs and each output. Knows the layout alone.

Source: WQLinear_GEMM of AutoAWQ.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from export.checkpoints.matrix import Array, Grid, dequantise, unpack
from export.checkpoints.tensors import FLOATS, Tensors, Weight

BITS: Final = 4
PER_WORD: Final = 8
PLACES: Final = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where each of a word's outputs is in it."""


class _Config(msgspec.Struct, frozen=True):
    bits: int = BITS
    group_size: int = 128
    version: str = "gemm"


def find(tensors: Tensors, config: Mapping[str, Any]) -> Iterator[Weight]:
    """The quantised weights of a checkpoint.

    Raises:
        SourceUnusable: a tensor is missing or of another shape, or a setting can't be read.
    """
    named = config.get("version", config.get("checkpoint_format", config.get("format", "gemm")))
    settings = tensors.settings({**config, "version": named}, _Config)
    tensors.refuse_unless("bits", settings.bits, (BITS,))
    tensors.refuse_unless("version", settings.version.lower(), ("gemm",))
    for module in tensors.modules("qweight", "qzeros", "scales"):
        yield _weight(tensors, settings.group_size, module)


def _weight(tensors: Tensors, setting: int, module: str) -> Weight:
    qweight, qzeros, scales = (f"{module}.{part}" for part in ("qweight", "qzeros", "scales"))
    columns, words = tensors.shape(qweight, ["I32"])
    rows = PER_WORD * words
    group_size = tensors.group_size(setting, columns)
    groups = -(-columns // group_size)
    tensors.expect(qzeros, ["I32"], (groups, words))
    tensors.expect(scales, FLOATS, (groups, rows))

    def numbers() -> Any:
        packed = tensors.integers(qweight)

        def codes(start: int, end: int) -> Array:
            first = start // PER_WORD
            some = _outputs(packed[:, first : -(-end // PER_WORD)])
            return some[:, start - first * PER_WORD :][:, : end - start].T

        return dequantise(
            codes,
            Grid.of_blocks((rows, columns), (1, group_size)),
            tensors.floats(scales).T,
            _outputs(tensors.integers(qzeros)).T,
        )

    return Weight(f"{module}.weight", (rows, columns), (qweight, qzeros, scales), numbers)


def _outputs(words: Array) -> Array:
    """Codes [R, 8 W] of words [R, W], output by output."""
    codes = unpack(words, BITS, PER_WORD * words.shape[1])
    return codes.reshape(len(words), -1, PER_WORD)[..., np.array(PLACES)].reshape(len(words), -1)
