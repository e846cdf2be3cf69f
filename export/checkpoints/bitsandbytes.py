"""Read weights as bitsandbytes stores them: 4 bits in blocks, or LLM.int8.

In 4 bits `weight` has two codes in a byte, the first in its high half, row after row; `quant_map`
says what a code stands for, `absmax` what each block is multiplied by, and `quant_state` the rest,
as JSON. `absmax` may itself be quantised in blocks of 8-bit codes around an offset. In 8 bits
`weight` has the codes and `SCB` the largest absolute value of each row, which 127 stands for. Knows
the layout alone.

Source: QuantState, dequantize_4bit and int8_vectorwise_dequant of bitsandbytes.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np
import torch

from export.checkpoints.matrix import Array, Grid, bytes_of, dequantise
from export.checkpoints.tensors import FLOATS, Tensors, Weight
from export.pieces import in_pieces

STATES: Final = ("quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4")
INTEGERS: Final = ("U8", "I8", "I32", "I64")
CODES: Final = 16
NESTED_CODES: Final = 256
MAX_BLOCK: Final = 4096
"""Numbers; the largest that bitsandbytes has. A block's scale is repeated as often."""
BYTES: Final = ("U8", "I8", "F16", "BF16", "F32")
"""What the bytes of codes may be declared as, for other programs' sake."""
DTYPE_BYTES: Final = {"U8": 1, "I8": 1, "F16": 2, "BF16": 2, "F32": 4}
OF_127: Final = np.float32(7.874015718698502e-3)
"""1 / 127 as bitsandbytes has it."""


class _State(msgspec.Struct, frozen=True):
    """What `quant_state` says."""

    shape: tuple[int, ...]
    blocksize: int
    nested_blocksize: int | None = None
    nested_offset: float = 0.0


def find(tensors: Tensors, _config: Mapping[str, Any]) -> Iterator[Weight]:
    """The quantised weights of a checkpoint.

    Raises:
        SourceUnusable: a tensor is missing or of another shape.
    """
    parts = (f"weight.{part}" for part in ("absmax", "quant_map", *STATES))
    blocks = dict.fromkeys(tensors.modules(*parts) + tensors.stored_in("U8"))
    rows = dict.fromkeys(tensors.modules("SCB") + tensors.stored_in("I8"))
    yield from (_four_bits(tensors, f"{module}.weight") for module in blocks)
    yield from (_eight_bits(tensors, module) for module in rows if module not in blocks)


def _four_bits(tensors: Tensors, name: str) -> Weight:
    there = [f"{name}.{state}" for state in STATES if f"{name}.{state}" in tensors.stored]
    described = there[0] if there else f"{name}.{STATES[0]}"
    state = _read_state(tensors, described)
    count = math.prod(state.shape)
    blocks = -(-count // state.blocksize)
    absmax, quant_map = f"{name}.absmax", f"{name}.quant_map"
    nested = {part: f"{name}.nested_{part}" for part in ("absmax", "quant_map")}
    stored = tensors.stored.get(name)
    each = 1 if stored is None else DTYPE_BYTES.get(stored.dtype, 1)
    tensors.expect_count(name, BYTES, -(-count // (2 * each)))
    tensors.expect(quant_map, FLOATS, (CODES,))
    if state.nested_blocksize is None:
        tensors.expect(absmax, FLOATS, (blocks,))
    else:
        tensors.expect(absmax, ["U8"], (blocks,))
        tensors.expect(nested["absmax"], FLOATS, (-(-blocks // state.nested_blocksize),))
        tensors.expect(nested["quant_map"], FLOATS, (NESTED_CODES,))

    def scales() -> Array:
        if state.nested_blocksize is None:
            return tensors.floats(absmax)
        values: Array = tensors.floats(nested["quant_map"])[tensors.integers(absmax)]
        values *= np.repeat(tensors.floats(nested["absmax"]), state.nested_blocksize)[:blocks]
        values += np.float32(state.nested_offset)
        return values

    def numbers() -> torch.Tensor:
        packed = tensors.read(name).flatten().view(torch.uint8).numpy()
        values, of_block = tensors.floats(quant_map), scales()
        whole = torch.empty(count, dtype=torch.float32)
        into = whole.numpy()

        def store(start: int, end: int) -> None:
            first, last = start * state.blocksize, min(end * state.blocksize, count)
            pairs = packed[first // 2 : -(-last // 2)]
            codes = np.stack([pairs >> 4, pairs & 15], -1).reshape(-1)[: last - first]
            into[first:last] = values[codes]
            with np.errstate(all="ignore"):  # as in `dequantise`
                into[first:last] *= np.repeat(of_block[start:end], state.blocksize)[: last - first]

        in_pieces(store, blocks, 4 * state.blocksize)
        return whole.view(state.shape)

    used = (name, absmax, quant_map, described)
    return Weight(
        name,
        state.shape,
        used if state.nested_blocksize is None else (*used, *nested.values()),
        numbers,
    )


def _read_state(tensors: Tensors, name: str) -> _State:
    tensors.shape(name, ["U8"], 1)
    try:
        state = msgspec.json.decode(tensors.integers(name).tobytes(), type=_State)
    except msgspec.MsgspecError as error:
        raise tensors.unusable(f"{name}: {error}") from error
    for field in ("blocksize", "nested_blocksize"):
        size = getattr(state, field)
        if size is not None and (size % 2 or not 2 <= size <= MAX_BLOCK):
            raise tensors.unusable(
                f"{name}: {field} is {size}, expected an even int of 2 … {MAX_BLOCK}"
            )
    if len(state.shape) != 2 or min(state.shape) < 1:
        raise tensors.unusable(f"{name}: shape is {[*state.shape]}, expected that of a matrix")
    return state


def _eight_bits(tensors: Tensors, module: str) -> Weight:
    name, largest, layout = f"{module}.weight", f"{module}.SCB", f"{module}.weight_format"
    rows, columns = tensors.shape(name, ["I8"])
    tensors.expect(largest, FLOATS, (rows,))
    parts = [name, largest]
    if layout in tensors.stored:
        parts.append(layout)
        tensors.expect(layout, INTEGERS, (), (1,))
        if tensors.integers(layout).any():
            raise tensors.unusable(f"{layout} is not 0, the only order that can be read is by rows")

    def numbers() -> torch.Tensor:
        scaled = dequantise(
            bytes_of(tensors.read(name)),
            Grid.of_blocks((rows, columns), (1, columns)),
            tensors.floats(largest)[:, None],
        )
        return scaled.mul_(float(OF_127))

    return Weight(name, (rows, columns), tuple(parts), numbers)
