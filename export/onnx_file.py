"""Read and write models as a small graph file and a large data file that can be memory-mapped.

Each tensor starts on a page boundary, and equal tensors are stored once. A model that was read
holds no data, only where it lies; it is written tensor by tensor, a piece at a time. Knows nothing
about what the tensors mean.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.spill import PAGE_BYTES, Array, place_of

INLINE_BYTES: Final = 1024
"""Smaller tensors stay in the graph file: the runtime reads shapes and scalars from there."""
PIECE_BYTES: Final = 1 << 24


def load_model(path: Path) -> ModelProto:
    """Read a model; tensors in other files stay there, with the whole path to them."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            file, offset, size = place(tensor)
            point_to(tensor, str((path.parent / file).resolve()), offset, size)
    return model


def place(tensor: TensorProto) -> tuple[Path, int, int]:
    """File, offset and bytes of a tensor that is stored outside the graph file."""
    fields = {entry.key: entry.value for entry in tensor.external_data}
    path = Path(fields["location"])
    return path, int(fields.get("offset", 0)), int(fields.get("length", 0)) or _size(tensor)


def point_to(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Say that a tensor is stored in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def read_tensor(tensor: TensorProto) -> Array:
    """The value of a tensor; one in another file is mapped, and can't be written to."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    path, offset, size = place(tensor)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if not size:
        return np.zeros(tuple(tensor.dims), dtype)
    return np.memmap(path, dtype, "r", offset, tuple(tensor.dims))


def stored_tensor(value: Array, name: str) -> TensorProto:
    """A tensor that says which file its value is mapped from, or else holds it."""
    there = place_of(value)
    if there is None:
        return numpy_helper.from_array(np.ascontiguousarray(value), name)
    tensor = TensorProto(name=name, dims=value.shape)
    tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
    point_to(tensor, str(there[0]), there[1], value.nbytes)
    return tensor


def num_bytes(tensor: TensorProto) -> int:
    """Bytes of a tensor's value."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return place(tensor)[2]
    return _size(tensor)


def save_model(model: ModelProto, path: Path) -> list[Path]:
    """Write `path` and `path`.data; returns the files written.

    The model's tensors are those of the new files afterwards.
    """
    data_path = path.with_name(f"{path.name}.data")
    path.parent.mkdir(parents=True, exist_ok=True)
    written: dict[bytes, int] = {}
    with data_path.open("wb") as data:
        for tensor in model.graph.initializer:
            size = num_bytes(tensor)
            if size < INLINE_BYTES:
                _inline(tensor)
                continue
            if not (tensor.raw_data or tensor.external_data):
                continue  # numbers that are spelt out one by one are few
            end = data.tell()
            start = end + -end % PAGE_BYTES
            data.write(bytes(start - end))
            digest = _copy(tensor, data)
            if digest in written:
                data.seek(end)
                data.truncate()
            point_to(tensor, data_path.name, written.setdefault(digest, start), size)
    path.write_bytes(model.SerializeToString())
    return [path, data_path]


def save_beside(model: ModelProto, path: Path) -> None:
    """Write a model's graph alone; its tensors stay in files below the same folder.

    The model's tensors are told relative to it afterwards.
    """
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            file, offset, size = place(tensor)
            point_to(tensor, str(file.relative_to(path.parent.resolve())), offset, size)
    path.write_bytes(model.SerializeToString())


def _inline(tensor: TensorProto) -> None:
    """Take a tensor out of its file."""
    if tensor.data_location == TensorProto.EXTERNAL:
        tensor.CopyFrom(numpy_helper.from_array(np.array(read_tensor(tensor)), tensor.name))


def _copy(tensor: TensorProto, data: BinaryIO) -> bytes:
    """Append a tensor's bytes to a file; returns their digest."""
    digest = hashlib.sha256()
    for piece in _pieces(tensor):
        digest.update(piece)
        data.write(piece)
    return digest.digest()


def _pieces(tensor: TensorProto) -> Iterator[bytes]:
    if tensor.data_location != TensorProto.EXTERNAL:
        yield tensor.raw_data
        return
    path, offset, left = place(tensor)
    with path.open("rb") as file:
        file.seek(offset)
        while left:
            piece = file.read(min(left, PIECE_BYTES))
            assert piece, f"{path} ends within {tensor.name}"
            left -= len(piece)
            yield piece


def _size(tensor: TensorProto) -> int:
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return int(np.prod(tuple(tensor.dims), dtype=np.int64)) * int(dtype.itemsize)
