from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph import OnnxGraph
from export.onnx_file import save_model
from export.quantise import BLOCK_SIZE, Scheme, quantise, quantise_rows
from export.spill import Array

K, N, VOCAB = 96, 80, 40


def model_with(weight: Array, bias: Array | None = None) -> OnnxGraph:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["product"])]
    if bias is not None:
        nodes.append(helper.make_node("Add", ["product", "b"], ["y"]))
    else:
        nodes[0].output[0] = "y"
    constants = {"w": weight} if bias is None else {"w": weight, "b": bias}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "tokens", N])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return OnnxGraph(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    )


def run(graph: OnnxGraph, folder: Path, **inputs: Array) -> Array:
    save_model(graph.finish(), folder / "model.onnx")
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (result,) = session.run(None, inputs)
    return np.asarray(result)


@pytest.mark.parametrize(("scheme", "step"), [("int8", 2 / 254), ("int4", 2 / 15)])
def test_product_stays_within_the_rounding_of_weights(
    scheme: Scheme, step: float, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    weight = random.uniform(-1, 1, (K, N)).astype(np.float32)
    x = random.standard_normal((2, 3, K)).astype(np.float32)
    graph = model_with(weight)
    assert quantise(graph, scheme) == 1
    # |x| · step / 2 bounds the weights' share; int8 activations add 1/127 of the largest.
    bound = np.abs(x).sum(-1, keepdims=True) * (step / 2 + np.abs(x).max() / 254)
    worst = np.abs(run(graph, tmp_path, x=x) - x @ weight)
    assert (worst < bound).all(), worst.max()


def test_matrix_from_a_gguf_q8_0_block_comes_back_exactly() -> None:
    random = np.random.default_rng(0)
    codes = random.integers(-127, 128, (N, K // BLOCK_SIZE, BLOCK_SIZE))
    codes[..., 0] = 127  # Q8_0 scales by the largest
    scales = random.uniform(0.001, 0.1, (N, K // BLOCK_SIZE, 1)).astype(np.float16)
    blocks = quantise_rows((codes * scales.astype(np.float32)).reshape(N, K), "int8")
    assert (blocks.codes.astype(int) - 128 == codes).all()


def q4_1(random: np.random.Generator) -> Array:
    """[N, K] on the grids that GGUF's Q4_1 has: step × 0 … 15 + minimum, both float16."""
    codes = random.integers(0, 16, (N, K // BLOCK_SIZE, BLOCK_SIZE))
    codes[..., 0], codes[..., 1] = 0, 15  # Q4_1 spans from the least to the largest
    steps = random.uniform(0.01, 0.1, (N, K // BLOCK_SIZE, 1)).astype(np.float16)
    low = (-random.uniform(4, 11, steps.shape) * steps).astype(np.float16)
    return (codes.astype(np.float32) * steps + low).reshape(N, K)


def two_products(first: Array, last: Array) -> OnnxGraph:
    """x @ first @ last: the output layer stays in 8 bits, so 4 bits are seen before it."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "last"], ["y"]),
        ],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "tokens", N])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(last, "last")],
    )
    return OnnxGraph(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    )


def test_means_of_blocks_bring_4_bits_as_close_as_8(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weight = q4_1(random)
    x = random.uniform(0, 1, (2, 3, K)).astype(np.float32)  # blocks whose means are not 0
    wanted = x @ weight.T @ np.eye(N, dtype=np.float32)
    errors: dict[Scheme, float] = {}
    for scheme in ("int8", "int4"):
        graph = two_products(weight.T.copy(), np.eye(N, dtype=np.float32))
        assert quantise(graph, scheme) == 2
        bits = [attribute.i for node in graph.nodes("MatMulNBits")
                for attribute in node.attribute if attribute.name == "bits"]  # fmt: skip
        assert bits == [int(scheme[3:]), 8]
        errors[scheme] = float(np.abs(run(graph, tmp_path, x=x) - wanted).mean())
    blocks = weight.reshape(N, -1, BLOCK_SIZE)
    low, step = blocks.min(-1), (blocks.max(-1) - blocks.min(-1)) / 15
    left_over = low - np.rint(low / step) * step
    without = x.reshape(2, 3, -1, BLOCK_SIZE).sum(-1) @ left_over.T
    assert np.abs(without).mean() > 5 * errors["int8"], "else the means are not needed here"
    assert errors["int4"] < 1.5 * errors["int8"], errors


def test_products_of_one_input_share_its_means() -> None:
    random = np.random.default_rng(0)
    graph = two_products(q4_1(random).T.copy(), np.eye(N, dtype=np.float32))
    graph.add("MatMul", ["x", "first"], ["again"])
    graph.add("Add", ["hidden", "again"], ["both"])
    graph.nodes("MatMul")[1].input[0] = "both"
    graph.index()
    assert quantise(graph, "int4") == 3
    assert len(graph.nodes("Concat")) == 1


def test_bias_moves_into_the_product(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weight = random.uniform(-1, 1, (K, N)).astype(np.float32)
    bias = random.uniform(50, 60, N).astype(np.float32)
    graph = model_with(weight, bias)
    quantise(graph, "int8")
    assert [node.op_type for node in graph.node_list] == ["MatMulNBits"]
    x = random.standard_normal((1, 1, K)).astype(np.float32)
    assert np.abs(run(graph, tmp_path, x=x) - (x @ weight + bias)).max() < 1


def test_tied_embedding_is_stored_once_and_reads_the_output_layers_bytes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = random.uniform(-1, 1, (VOCAB, K)).astype(np.float32)
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Gather", ["table", "ids"], ["hidden"]),
                helper.make_node("MatMul", ["hidden", "head"], ["logits"]),
            ],
            "tied",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])],
            [
                helper.make_tensor_value_info(
                    "logits", TensorProto.FLOAT, ["batch", "tokens", VOCAB]
                )
            ],
            [
                numpy_helper.from_array(table, "table"),
                numpy_helper.from_array(np.ascontiguousarray(table.T), "head"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    graph = OnnxGraph(model)
    quantise(graph, "int8")
    assert {n.op_type for n in graph.node_list} == {"GatherBlockQuantized", "MatMulNBits"}
    ids = np.arange(VOCAB)[None]
    got = run(graph, tmp_path, ids=ids)[0]
    assert np.abs(got - table @ table.T).max() < 0.5
    offsets = {
        next(e.value for e in tensor.external_data if e.key == "offset")
        for tensor in model.graph.initializer
        if "codes" in tensor.name
    }
    assert len(offsets) == 1, "two views of the same bytes"
