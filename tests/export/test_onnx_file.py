from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.onnx_file import load_model, read_tensor, save_model
from export.spill import PAGE_BYTES


def test_large_tensors_start_on_pages_and_equal_ones_are_stored_once(tmp_path: Path) -> None:
    values = {
        "a": np.arange(1000, dtype=np.float32),
        "b": np.arange(999, dtype=np.float32),
        "a_again": np.arange(1000, dtype=np.float32),
        "small": np.arange(3, dtype=np.int64),
    }
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "a"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1000])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    files = save_model(helper.make_model(graph), tmp_path / "model.onnx")
    assert [file.name for file in files] == ["model.onnx", "model.onnx.data"]
    stored = {
        tensor.name: int(next(e.value for e in tensor.external_data if e.key == "offset"))
        for tensor in onnx.load(files[0], load_external_data=False).graph.initializer
        if tensor.external_data
    }
    assert stored["a"] == stored["a_again"] != stored["b"]
    assert all(offset % PAGE_BYTES == 0 for offset in stored.values())
    assert "small" not in stored
    back = {t.name: read_tensor(t) for t in load_model(files[0]).graph.initializer}
    for name, value in values.items():
        assert (back[name] == value).all(), name
