"""Weights that come from 4 bits are stored in 4 bits as they are, if they use a part of a grid."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from export.__main__ import main
from export.onnx_file import load_model, read_tensor
from export.own_grid import steps_between
from export.quantise import BLOCK_SIZE, Blocks, quantise_with_means
from tests.export import quantised as q
from tests.export.test_checkpoints import AWQ, GPTQ
from tests.export.tiny import CONFIGS, save_tiny

Float32 = npt.NDArray[np.float32]
GROUPS = 4
"""Of 32 values that share a step, as in a group of 128."""


def four_bit_codes(random: np.random.Generator, shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Codes that are seldom 0 or 15, as those of weights are."""
    return np.clip(np.rint(random.normal(7.5, 3, shape)), 0, 15).astype(np.int64)


def on_grids(codes: npt.NDArray[np.int64], zero: int, random: np.random.Generator) -> Float32:
    steps = random.uniform(0.001, 0.1, (len(codes), 1)).astype(np.float16).astype(np.float32)
    return (codes - zero).astype(np.float32) * steps


def read_back(blocks: Blocks, columns: int) -> Float32:
    """What blocks with means stand for: the last ones hold remainders of the others."""
    low, high = blocks.codes & 15, blocks.codes >> 4
    codes = np.stack([low, high], -1).reshape(*blocks.codes.shape[:2], BLOCK_SIZE)
    assert blocks.zero_points is not None
    pairs = blocks.zero_points
    zeros = np.stack([pairs & 15, pairs >> 4], -1).reshape(len(pairs), -1)[:, : codes.shape[1]]
    scales = blocks.scales.astype(np.float32)[..., None]
    values = (codes.astype(np.float32) - zeros[..., None]) * scales
    count = columns // BLOCK_SIZE
    rest = values[:, count:].reshape(len(values), -1)[:, :count]
    whole: Float32 = values[:, :count] + rest[..., None] / BLOCK_SIZE
    return whole.reshape(len(values), columns)


@pytest.mark.parametrize("zero", [0, 1, 7, 8, 15])
def test_values_of_four_bits_come_back_exactly(zero: int) -> None:
    random = np.random.default_rng(0)
    columns = GROUPS * BLOCK_SIZE
    codes = four_bit_codes(random, (256, columns))
    blocks = codes.reshape(-1, BLOCK_SIZE)
    spans = blocks.max(-1) - blocks.min(-1)
    assert (spans < 15).mean() > 0.5, "else a grid from end to end would be theirs"
    weight = on_grids(codes, zero, random)
    found = read_back(quantise_with_means(weight), columns)
    assert np.abs(found - weight).max() <= 1e-6 * np.abs(weight).max()


def test_values_on_no_grid_get_one_from_end_to_end() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, (64, GROUPS, BLOCK_SIZE)).astype(np.float32)
    assert (steps_between(values, values.min(-1), values.max(-1)) == 15).all()


def test_a_grid_that_zero_is_on_is_preferred() -> None:
    values = np.tile(np.float32([-3, 1, 5]), 11)[:BLOCK_SIZE][None, None]  # steps of 4; of 1
    assert steps_between(values, values.min(-1), values.max(-1)).tolist() == [[8]]
    values += np.float32(0.3)
    assert steps_between(values, values.min(-1), values.max(-1)).tolist() == [[2]]


@pytest.mark.parametrize(
    ("config", "quantiser"), [(GPTQ | {"bits": 4}, q.gptq()), (AWQ, q.awq())], ids=["gptq", "awq"]
)
def test_fast_keeps_the_numbers_of_a_checkpoint_in_4_bits(
    config: dict[str, object], quantiser: q.Quantiser, tmp_path: Path
) -> None:
    save_tiny(tmp_path / "source", CONFIGS["llama"]())
    wanted = q.save_quantised(tmp_path / "source", config, quantiser)
    out = tmp_path / "out"
    assert main([str(tmp_path / "source"), "--out", str(out), "--quantise", "int4"]) == 0
    graph = load_model(out / "model.onnx").graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    found = []
    for node in graph.node:
        numbers = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type == "MatMulNBits" and numbers["bits"] == 4:
            codes, scales, zeros = (read_tensor(constants[name]) for name in node.input[1:4])
            columns = numbers["K"] * BLOCK_SIZE // (BLOCK_SIZE + 1)
            found.append(read_back(Blocks(codes, scales, zeros), columns))
    projections = {name: w.numpy() for name, w in wanted.items() if name.endswith("_proj.weight")}
    assert sum(len(matrix) for matrix in found) == sum(len(w) for w in projections.values())
    for name, weight in projections.items():
        scale = 0.25 if "q_proj" in name else 1  # attention's, of heads of 16
        rows = (  # one product has queries, keys and values
            matrix[start : start + len(weight)]
            for matrix in found
            for start in range(0, len(matrix) - len(weight) + 1, 32)
            if matrix.shape[1] == weight.shape[1]
        )
        assert min(np.abs(some - scale * weight).max() for some in rows) < 1e-6, name
