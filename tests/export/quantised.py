"""Write tiny models whose weights are quantised, each format as its definition says it, by loops.

A matrix becomes the tensors that are stored for it, and the numbers that they stand for. Shares
nothing with what reads them.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Array = npt.NDArray[Any]
Stored = tuple[dict[str, Tensor], Array]
"""Tensors by the ends of their names, and the matrix in float32."""
Quantiser = Callable[[Array], Stored]


def words(codes: Sequence[int], bits: int) -> list[int]:
    """Codes one after the other, from the lowest bit of the first word on."""
    value = sum(int(code) << bits * i for i, code in enumerate(codes))
    count = -(-len(codes) * bits // 32)
    return [
        (value >> 32 * i & 0xFFFFFFFF) - (value >> 32 * i + 31 & 1) * 2**32 for i in range(count)
    ]


def int32(rows: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([list(row) for row in rows], dtype=torch.int32)


def rounded(
    weight: Array, bits: int, group: Array, symmetric: bool, dtype: torch.dtype = torch.float16
) -> tuple[Array, Tensor, Array]:
    """Codes 0 … 2^bits - 1 [N, K], scales [N, G] and zero points [N, G] of groups of columns."""
    groups, top = int(group.max()) + 1, 2**bits - 1
    codes = np.zeros(weight.shape, np.int64)
    scales = torch.zeros(len(weight), groups, dtype=dtype)
    zeros = np.zeros((len(weight), groups), np.int64)
    for n, row in enumerate(weight):
        for g in range(groups):
            some = row[group == g]
            if symmetric:
                scale, zero = 2 * np.abs(some).max() / top, 2 ** (bits - 1)
            else:
                low, high = min(some.min(), 0), max(some.max(), 0)
                scale = (high - low) / top
                zero = int(np.clip(np.rint(-low / scale), 1, top))
            scales[n, g], zeros[n, g] = float(scale), zero
            codes[n, group == g] = np.clip(np.rint(some / scales[n, g].item()) + zero, 0, top)
    return codes, scales, zeros


def numbers(codes: Array, scales: Tensor, zeros: Array, group: Array) -> Array:
    """(code - zero point) × scale, one by one."""
    wanted = np.zeros(codes.shape, np.float32)
    for n, k in np.ndindex(*codes.shape):
        g = group[k]
        scale = np.float32(scales[n, g].item())
        wanted[n, k] = np.float32(int(codes[n, k]) - int(zeros[n, g])) * scale
    return wanted


def gptq(
    *, bits: int = 4, group_size: int = 32, version: int = 1, sym: bool = False,
    shuffled: bool = False, g_idx: bool = True,
) -> Quantiser:  # fmt: skip
    def quantise(weight: Array) -> Stored:
        columns = weight.shape[1]
        group = np.arange(columns) // (columns if group_size == -1 else group_size)
        if shuffled:
            group = np.random.default_rng(1).permutation(group)
        codes, scales, zeros = rounded(weight, bits, group, sym)
        kept = (zeros - 1 if version == 1 else zeros) % 2**bits
        tensors = {
            "qweight": int32([words(row, bits) for row in codes]).T.contiguous(),
            "qzeros": int32([words(column, bits) for column in kept.T]),
            "scales": scales.T.contiguous(),
        }
        if g_idx:
            tensors["g_idx"] = torch.tensor(group, dtype=torch.int32)
        return tensors, numbers(codes, scales, zeros, group)

    return quantise


def awq(*, group_size: int = 32) -> Quantiser:
    def packed(by_input: Array) -> Tensor:
        rows = []
        for row in by_input:
            whole = []
            for start in range(0, len(row), 8):
                ordered = [row[start + output] for output in (0, 2, 4, 6, 1, 3, 5, 7)]
                whole += words(ordered, 4)
            rows.append(whole)
        return int32(rows)

    def quantise(weight: Array) -> Stored:
        group = np.arange(weight.shape[1]) // group_size
        codes, scales, zeros = rounded(weight, 4, group, symmetric=False)
        tensors = {
            "qweight": packed(codes.T),
            "qzeros": packed(zeros.T),
            "scales": scales.T.contiguous(),
        }
        return tensors, numbers(codes, scales, zeros, group)

    return quantise


def pack_quantized(
    *, bits: int = 4, group_size: int = 32, symmetric: bool = True, shuffled: bool = False,
    packed_zeros: bool = True,
) -> Quantiser:  # fmt: skip
    def quantise(weight: Array) -> Stored:
        columns = weight.shape[1]
        group = np.arange(columns) // (columns if group_size == -1 else group_size)
        if shuffled:
            group = np.random.default_rng(1).permutation(group)
        codes, scales, zeros = rounded(weight, bits, group, symmetric, torch.bfloat16)
        tensors = {
            "weight_packed": int32([words(row, bits) for row in codes]),
            "weight_scale": scales,
            "weight_shape": torch.tensor(weight.shape),
        }
        if not symmetric and packed_zeros:
            by_output = int32([words(column, bits) for column in zeros.T])
            tensors["weight_zero_point"] = by_output.T.contiguous()
        elif not symmetric:
            tensors["weight_zero_point"] = torch.tensor(zeros - 2 ** (bits - 1)).to(torch.int8)
        if shuffled:
            tensors["weight_g_idx"] = torch.tensor(group, dtype=torch.int32)
        return tensors, numbers(codes, scales, zeros, group)

    return quantise


def int_quantized(*, symmetric: bool = True) -> Quantiser:
    """Rows of int8."""

    def quantise(weight: Array) -> Stored:
        group = np.zeros(weight.shape[1], np.int64)
        codes, scales, zeros = rounded(weight, 8, group, symmetric, torch.float32)
        tensors = {
            "weight": torch.tensor(codes - 128).to(torch.int8),
            "weight_scale": scales,
        }
        if not symmetric:
            tensors["weight_zero_point"] = torch.tensor(zeros - 128).to(torch.int8)
        return tensors, numbers(codes, scales, zeros, group)

    return quantise


def float8(
    block: tuple[int, int] | None, *, scale_name: str = "weight_scale",
    scale_shape: Callable[[int, int], tuple[int, ...]] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Quantiser:  # fmt: skip
    """Floats of 8 bits in blocks; None: the whole matrix is one."""

    def quantise(weight: Array) -> Stored:
        rows, columns = weight.shape
        high, wide = block or (rows, columns)
        high, wide = high or rows, wide or columns
        scales = torch.zeros(-(-rows // high), -(-columns // wide), dtype=dtype)
        codes = torch.zeros(rows, columns, dtype=torch.float8_e4m3fn)
        wanted = np.zeros(weight.shape, np.float32)
        for i, j in np.ndindex(*scales.shape):
            part = np.s_[i * high : (i + 1) * high, j * wide : (j + 1) * wide]
            scales[i, j] = float(np.abs(weight[part]).max() / 448)
            scale = np.float32(scales[i, j].item())
            codes[part] = torch.tensor(weight[part] / scale).to(torch.float8_e4m3fn)
            wanted[part] = codes[part].float().numpy() * scale
        stored = scales.reshape(scale_shape(rows, columns)) if scale_shape else scales
        return {"weight": codes, scale_name: stored}, wanted

    return quantise


NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip
FP4 = [x / 12 for x in (0, 0.0625, 8, 12, 4, 6, 2, 3)]
FP4 = [*FP4, *(-x for x in FP4)]


def four_bits(
    *, kind: str = "nf4", nested: bool = True, storage: torch.dtype = torch.uint8
) -> Quantiser:
    """Blocks of 64 of bitsandbytes."""

    def quantise(weight: Array) -> Stored:
        values = torch.tensor(NF4 if kind == "nf4" else FP4, dtype=torch.float32)
        flat = weight.reshape(-1, 64)
        absmax = torch.tensor(np.abs(flat).max(1), dtype=torch.float32)
        state: dict[str, Any] = {
            "quant_type": kind, "blocksize": 64, "dtype": "bfloat16", "shape": weight.shape,
        }  # fmt: skip
        tensors = {"weight.quant_map": values}
        if nested:
            offset = absmax.mean()
            largest = (absmax - offset).abs().max().reshape(1)
            levels = torch.linspace(-1, 1, 256)
            of_block = [
                int((levels - (a - offset) / largest).abs().argmin()) for a in absmax.tolist()
            ]
            tensors["weight.absmax"] = torch.tensor(of_block, dtype=torch.uint8)
            tensors["weight.nested_absmax"] = largest
            tensors["weight.nested_quant_map"] = levels
            state |= {
                "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset.item(),
            }  # fmt: skip
            absmax = torch.stack([levels[code] * largest[0] + offset for code in of_block])
        else:
            tensors["weight.absmax"] = absmax
        codes = [
            [int((values - x / absmax[b]).abs().argmin()) for x in row]
            for b, row in enumerate(flat.tolist())
        ]
        wanted = [[values[c] * absmax[b] for c in row] for b, row in enumerate(codes)]
        joined = [code for row in codes for code in row]
        pairs = [high << 4 | low for high, low in zip(joined[::2], joined[1::2], strict=True)]
        tensors["weight"] = torch.tensor(pairs, dtype=torch.uint8).view(storage).reshape(-1, 1)
        text = json.dumps(state).encode()
        tensors[f"weight.quant_state.bitsandbytes__{kind}"] = torch.tensor([*text]).to(torch.uint8)
        return tensors, np.array(wanted, np.float32).reshape(weight.shape)

    return quantise


def eight_bits() -> Quantiser:
    """LLM.int8 of bitsandbytes."""

    def quantise(weight: Array) -> Stored:
        largest = torch.tensor(np.abs(weight).max(1), dtype=torch.float32)
        codes = torch.tensor(weight).div(largest[:, None]).mul(127).round().to(torch.int8)
        wanted = codes * largest.view(-1, 1) * 7.874015718698502e-3
        tensors = {
            "weight": codes,
            "SCB": largest,
            "weight_format": torch.tensor(0).to(torch.uint8),
        }
        return tensors, wanted.numpy()

    return quantise


def compressed(named: str, **weights: Any) -> dict[str, Any]:
    """The configuration of compressed-tensors with one scheme."""
    scheme = {"num_bits": 8, "type": "int", "symmetric": True, **weights}
    groups = {"group_0": {"targets": ["Linear"], "weights": scheme}}
    return {
        "quant_method": "compressed-tensors", "format": named, "config_groups": groups,
        "ignore": ["lm_head"], "quantization_status": "compressed",
    }  # fmt: skip


def save_quantised(
    folder: Path, config: dict[str, Any], quantiser: Quantiser, chosen: str = r".*_proj\.weight"
) -> dict[str, Tensor]:
    """Quantise some weights of a folder in place; returns all that the model has then.

    Args:
        folder: of a model in floats.
        config: what its configuration says of the method.
        quantiser: of a matrix.
        chosen: the weights' names.
    """
    weights = load_file(folder / "model.safetensors")
    stored, wanted = dict(weights), dict(weights)
    for name in weights:
        if re.fullmatch(chosen, name):
            tensors, numbers = quantiser(stored.pop(name).numpy())
            module = name.removesuffix(".weight")
            stored |= {f"{module}.{end}": tensor for end, tensor in tensors.items()}
            wanted[name] = torch.from_numpy(numbers)
    assert stored.keys() != weights.keys(), f"nothing is named {chosen}"
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    written = json.loads((folder / "config.json").read_text()) | {"quantization_config": config}
    (folder / "config.json").write_text(json.dumps(written))
    return wanted
