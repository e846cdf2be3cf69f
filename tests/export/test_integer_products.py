"""Products of int8 and uint8 in a graph, against NumPy, and what they make of single tokens."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.model_files import Arithmetic
from app.runtime.arithmetic import multiplies_exactly
from export.gptq import column_steps, round_to_nearest
from export.graph import OnnxGraph
from export.integer_products import TURNED, replace_product, turn_activations
from export.products import find_products
from export.spill import Array
from export.turns import hadamard, orthogonal
from tests.export.test_quantise import model_with, run

K, N = 96, 80
HERE: Arithmetic = "u8s8" if multiplies_exactly() else "any"


def matrix_and_inputs(seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((K, N)).astype(np.float32)
    return weight, rng.standard_normal((3, 5, K)).astype(np.float32)


def integer_graph(
    weight: Array, bias: Array | None = None, arithmetic: Arithmetic = HERE
) -> OnnxGraph:
    graph = model_with(weight, bias)
    [product] = find_products(graph)
    steps = column_steps(weight)
    replace_product(
        graph, product, round_to_nearest(weight, steps), steps, {}, arithmetic=arithmetic
    )
    graph.prune()
    return graph


def test_a_product_is_the_exact_one_of_the_rounded_numbers(tmp_path: Path) -> None:
    weight, x = matrix_and_inputs()
    largest = np.abs(x).max(-1, keepdims=True)
    codes = np.rint(x / largest * 127).astype(np.int64)
    steps = column_steps(weight)
    exact = codes @ round_to_nearest(weight, steps).astype(np.int64)
    wanted = exact * (steps / 127) * largest
    found = run(integer_graph(weight), tmp_path, x=x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert np.abs(found - x @ weight).mean() < 0.02 * np.abs(x @ weight).mean()


@pytest.mark.skipif(HERE == "any", reason="this processor has neither VNNI nor AMX")
def test_both_arithmetics_give_bitwise_the_same(tmp_path: Path) -> None:
    weight, x = matrix_and_inputs()
    graphs = [integer_graph(weight, arithmetic=arithmetic) for arithmetic in ("any", "u8s8")]
    (tmp_path / "any").mkdir()
    (tmp_path / "u8s8").mkdir()
    everywhere, here = run(graphs[0], tmp_path / "any", x=x), run(graphs[1], tmp_path / "u8s8", x=x)
    assert (everywhere == here).all()


def test_large_codes_do_not_saturate(tmp_path: Path) -> None:
    weight = np.ones((K, N), np.float32)
    x = np.ones((3, 5, K), np.float32)
    found = run(integer_graph(weight), tmp_path, x=x)
    np.testing.assert_allclose(found, K, rtol=1e-6)


def test_a_bias_is_added_once(tmp_path: Path) -> None:
    weight, x = matrix_and_inputs()
    bias = np.arange(N, dtype=np.float32)
    found = run(integer_graph(weight, bias), tmp_path, x=x)
    np.testing.assert_allclose(found, run(integer_graph(weight), tmp_path, x=x) + bias, rtol=1e-5)


def test_a_token_is_bitwise_the_same_beside_others_however_large(tmp_path: Path) -> None:
    weight, x = matrix_and_inputs()
    x[1] *= 1000
    graph = integer_graph(weight)
    together = run(graph, tmp_path, x=x)
    for row in range(len(x)):
        for column in range(x.shape[1]):
            alone = run(integer_graph(weight), tmp_path, x=x[row : row + 1, column : column + 1])
            assert (alone[0, 0] == together[row, column]).all()


def test_a_token_of_zeros_gives_zeros(tmp_path: Path) -> None:
    weight, x = matrix_and_inputs()
    x[0, 0] = 0
    found = run(integer_graph(weight), tmp_path, x=x)
    assert (found[0, 0] == 0).all()
    assert np.isfinite(found).all()


def test_turned_inputs_give_the_same_products(tmp_path: Path) -> None:
    width = 2 * TURNED
    rng = np.random.default_rng(7)
    weight = rng.standard_normal((width, N)).astype(np.float32)
    shape = ["batch", "tokens", width]
    graph = OnnxGraph(
        helper.make_model(
            helper.make_graph(
                [
                    helper.make_node("Mul", ["x", "x"], ["squares"]),
                    helper.make_node("MatMul", ["squares", "w"], ["y"]),
                ],
                "test",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "tokens", N])],
                [numpy_helper.from_array(weight, "w")],
            ),
            opset_imports=[helper.make_opsetid("", 18)],
            ir_version=9,
        )
    )
    x = rng.standard_normal((2, 3, width)).astype(np.float32)
    assert turn_activations(graph) == 1
    assert len(graph.nodes("Reshape")) == 2
    np.testing.assert_allclose(run(graph, tmp_path, x=x), (x * x) @ weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("turn", [hadamard(64), orthogonal(48, 0)])
def test_turns_are_orthogonal(turn: np.ndarray) -> None:
    np.testing.assert_allclose(turn @ turn.T, np.eye(len(turn)), atol=1e-12)
