"""GPTQ against every possible rounding of tiny matrices, and its promises for large ones."""

import itertools

import numpy as np
import pytest

from export import gptq
from export.gptq import column_steps, round_by_gptq, round_to_nearest


def inputs(rows: int, width: int, seed: int) -> np.ndarray:
    """Inputs whose dimensions go together, as those of a model do."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((rows, width)) @ rng.standard_normal((width, width))
    return mixed.astype(np.float32)


def error(x: np.ndarray, weight: np.ndarray, codes: np.ndarray, steps: np.ndarray) -> float:
    return float(((x @ (weight - codes * steps)) ** 2).sum())


def best(x: np.ndarray, weight: np.ndarray, steps: np.ndarray, levels: int) -> float:
    """The least error of all roundings, column by column."""
    all_codes = np.array(list(itertools.product(range(-levels, levels + 1), repeat=len(weight))))
    total = 0.0
    for column in range(weight.shape[1]):
        differences = weight[:, column] - all_codes * steps[column]
        total += float(((differences @ x.T) ** 2).sum(axis=1).min())
    return total


def test_it_comes_near_the_best_of_all_roundings(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = 3
    monkeypatch.setattr(gptq, "LEVELS", levels)
    nearest, ours, least = 0.0, 0.0, 0.0
    for seed in range(20):
        x = inputs(32, 4, seed)
        weight = np.random.default_rng(100 + seed).standard_normal((4, 3)).astype(np.float32)
        steps = column_steps(weight)
        codes = round_by_gptq(weight, steps, x.T @ x, damping=1e-6)
        assert np.abs(codes).max() <= levels
        nearest += error(x, weight, round_to_nearest(weight, steps), steps)
        ours += error(x, weight, codes, steps)
        least += best(x, weight, steps, levels)
    assert least <= ours
    assert ours - least < 0.7 * (nearest - least)


def test_it_halves_the_error_of_wide_matrices_across_blocks() -> None:
    width = 2 * gptq.BLOCK + 17
    x = inputs(2048, width, 0)
    weight = np.random.default_rng(1).standard_normal((width, 40)).astype(np.float32)
    steps = column_steps(weight)
    codes = round_by_gptq(weight, steps, x.T @ x)
    nearest = error(x, weight, round_to_nearest(weight, steps), steps)
    assert error(x, weight, codes, steps) < 0.5 * nearest


def test_blocks_of_columns_of_work_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = inputs(256, 40, 3)
    weight = np.random.default_rng(4).standard_normal((40, 8)).astype(np.float32)
    steps = column_steps(weight)
    whole = round_by_gptq(weight, steps, x.T @ x)
    monkeypatch.setattr(gptq, "BLOCK", 7)
    assert np.count_nonzero(round_by_gptq(weight, steps, x.T @ x) != whole) <= 2, "but for ties"


def test_inputs_that_are_never_seen_and_columns_of_zeros_are_no_trouble() -> None:
    x = inputs(64, 8, 5)
    x[:, 3] = 0
    weight = np.random.default_rng(6).standard_normal((8, 4)).astype(np.float32)
    weight[:, 1] = 0
    steps = column_steps(weight)
    codes = round_by_gptq(weight, steps, x.T @ x)
    assert (codes[:, 1] == 0).all()
    assert np.isfinite(codes * steps).all()


@pytest.mark.parametrize("size", [1e-30, 1e12])
def test_inputs_that_are_alike_or_of_any_size_are_no_trouble(size: float) -> None:
    x = np.repeat(inputs(16, 1, 8), 12, axis=1) * np.float32(size)
    x[:, 0] *= np.float32(1e-6)
    weight = np.random.default_rng(9).standard_normal((12, 4)).astype(np.float32)
    steps = column_steps(weight)
    codes = round_by_gptq(weight, steps, (x.T @ x).astype(np.float32))
    assert np.abs(codes.astype(int)).max() <= gptq.LEVELS


def test_inputs_that_are_not_finite_leave_plain_rounding() -> None:
    weight = np.random.default_rng(10).standard_normal((4, 4)).astype(np.float32)
    steps = column_steps(weight)
    moments = np.full((4, 4), np.inf, np.float32)
    assert (round_by_gptq(weight, steps, moments) == round_to_nearest(weight, steps)).all()
