"""Read and write models as a small graph file and a large data file that can be memory-mapped.

Each tensor starts on a page boundary, and equal tensors are stored once. Knows nothing about what
the tensors mean.
"""

import hashlib
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import load_external_data_for_model

PAGE_BYTES = 4096
INLINE_BYTES = 1024
"""Smaller tensors stay in the graph file: the runtime reads shapes and scalars from there."""


def load_model(path: Path) -> ModelProto:
    """Read a model with all its data into memory."""
    model = onnx.load(path, load_external_data=False)
    load_external_data_for_model(model, str(path.parent))
    return model


def save_model(model: ModelProto, path: Path) -> list[Path]:
    """Write `path` and `path`.data; returns the files written.

    The model loses its data in the process and must not be used afterwards.
    """
    data_path = path.with_name(f"{path.name}.data")
    path.parent.mkdir(parents=True, exist_ok=True)
    offsets: dict[bytes, int] = {}
    with data_path.open("wb") as data:
        for tensor in model.graph.initializer:
            raw = tensor.raw_data
            if len(raw) < INLINE_BYTES:
                continue
            digest = hashlib.sha256(raw).digest()
            if digest not in offsets:
                data.write(bytes(-data.tell() % PAGE_BYTES))
                offsets[digest] = data.tell()
                data.write(raw)
            _point_to(tensor, data_path.name, offsets[digest], len(raw))
    path.write_bytes(model.SerializeToString())
    return [path, data_path]


def _point_to(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
