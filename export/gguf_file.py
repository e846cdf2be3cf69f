"""Read the header of a GGUF file, with every count checked before anything is allocated.

The readers that come after this one (the `gguf` package's, in Transformers) believe what a file
says: an array of 2**40 in a file of 49 bytes keeps them busy for ever. Knows the container, not
what its fields mean.

Source: docs/gguf.md in the ggml repository.
"""

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from gguf.constants import (
    GGML_QUANT_SIZES,
    GGUF_DEFAULT_ALIGNMENT,
    GGMLQuantizationType,
    GGUFValueType,
)

from export.errors import SourceUnusable
from export.file_checks import refuse_stand_in, shown

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
NUMBERS: Final[Mapping[GGUFValueType, str]] = {
    GGUFValueType.UINT8: "u1", GGUFValueType.INT8: "i1", GGUFValueType.UINT16: "u2",
    GGUFValueType.INT16: "i2", GGUFValueType.UINT32: "u4", GGUFValueType.INT32: "i4",
    GGUFValueType.FLOAT32: "f4", GGUFValueType.BOOL: "?", GGUFValueType.UINT64: "u8",
    GGUFValueType.INT64: "i8", GGUFValueType.FLOAT64: "f8",
}  # fmt: skip
"""Value types of one fixed size, as numpy writes them."""
MAX_DIMENSIONS: Final = 4
MAX_ITEMS: Final = 1 << 22
"""Items of an array: the largest vocabularies have some 2**18 tokens and twice as many merges."""
MAX_NESTING: Final = 4
LEAST_FIELD_BYTES: Final = 8 + 4 + 1
"""A field's name may be empty; its type and a value of one byte follow."""
LEAST_TENSOR_BYTES: Final = 8 + 4 + 4 + 8
"""A tensor's name may be empty; number of dimensions, type and offset follow."""


@dataclass(frozen=True)
class GgufFile:
    """What the header of a GGUF file says."""

    path: Path
    fields: Mapping[str, Any]
    """Metadata: numbers, booleans, texts, and lists of them."""
    shapes: Mapping[str, tuple[int, ...]]
    """Tensors by name, the largest stride first."""

    @property
    def num_elements(self) -> int:
        """Numbers in all tensors together."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def read_gguf(path: Path) -> GgufFile:
    """Read a file's metadata and the list of its tensors; every tensor lies inside the file.

    Raises:
        SourceUnusable: the file is damaged; the sentence names it, the field and the value.
    """
    refuse_stand_in(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(path, data)
        cursor.read_version()
        num_tensors = cursor.count("number of tensors", LEAST_TENSOR_BYTES)
        num_fields = cursor.count("number of fields", LEAST_FIELD_BYTES)
        fields: dict[str, Any] = {}
        for i in range(num_fields):
            name = cursor.text(f"name of field {i}")
            if name in fields:
                raise cursor.refuse(f"field {shown(name)} is there twice")
            fields[name] = cursor.value(cursor.number("u4", f"type of {shown(name)}"), shown(name))
        return GgufFile(path, fields, _read_tensors(cursor, num_tensors, fields))


def _read_tensors(
    cursor: "_Cursor", count: int, fields: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    places: list[tuple[str, int, int]] = []
    for i in range(count):
        name = cursor.text(f"name of tensor {i}")
        tensor = f"tensor {shown(name)}"
        if name in shapes:
            raise cursor.refuse(f"{tensor} is there twice")
        rank = cursor.number("u4", f"{tensor}: number of dimensions")
        if not 1 <= rank <= MAX_DIMENSIONS:
            raise cursor.refuse(f"{tensor} has {rank} dimensions, expected 1 … {MAX_DIMENSIONS}")
        dims = [cursor.number("u8", f"{tensor}: dimension {n}") for n in range(rank)]
        kind = cursor.number("u4", f"{tensor}: type")
        offset = cursor.number("u8", f"{tensor}: offset")
        shapes[name] = tuple(reversed(dims))
        places.append((tensor, offset, _tensor_bytes(cursor, tensor, dims, kind)))
    alignment = fields.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise cursor.refuse(f"general.alignment is {shown(alignment)}, expected a power of two")
    room = max(0, cursor.size - (cursor.position + -cursor.position % alignment))
    for tensor, offset, size in places:
        if offset + size > room:
            end = offset + size
            raise cursor.refuse(f"{tensor} ends at byte {end} of the data, which has {room}")
    total = sum(size for *_, size in places)
    if total > room:
        raise cursor.refuse(f"its tensors take {total} bytes of data, which has {room}")
    return shapes


def _tensor_bytes(cursor: "_Cursor", tensor: str, dims: list[int], kind: int) -> int:
    try:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError):
        raise cursor.refuse(f"{tensor} has type {kind}, which is unknown") from None
    if 0 in dims or dims[0] % block:
        raise cursor.refuse(
            f"{tensor} has dimensions {dims}, expected none of 0 and the first in blocks of {block}"
        )
    return math.prod(dims) // block * block_bytes


class _Cursor:
    """A place in a file; everything read is checked against the file's end first."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data = path, data
        self._order: Literal["<", ">"] = "<"
        self.position, self.size = 0, len(data)

    def refuse(self, what: str) -> SourceUnusable:
        return SourceUnusable(f"{self._path}: {what}")

    def take(self, size: int, what: str) -> bytes:
        """The next bytes."""
        if size > self.size - self.position:
            raise self.refuse(
                f"{what} needs {size} bytes at byte {self.position}, the file has {self.size}"
            )
        start, self.position = self.position, self.position + size
        return self._data[start : self.position]

    def read_version(self) -> None:
        """Check magic and version; a version in the upper half is the other byte order."""
        magic = self.take(len(MAGIC), "magic")
        if magic != MAGIC:
            raise self.refuse(f"begins with {magic!r}, a GGUF file with {MAGIC!r}")
        raw = self.take(4, "version")
        self._order = "<" if struct.unpack("<I", raw)[0] & 0xFFFF else ">"
        version = struct.unpack(f"{self._order}I", raw)[0]
        if version not in VERSIONS:
            raise self.refuse(f"version is {version}, expected {' or '.join(map(str, VERSIONS))}")

    def number(self, kind: str, what: str) -> Any:
        """A number of a numpy type."""
        dtype = np.dtype(kind).newbyteorder(self._order)
        return np.frombuffer(self.take(dtype.itemsize, what), dtype)[0].item()

    def count(self, what: str, least_bytes: int) -> int:
        """How many things follow that take at least so many bytes each."""
        count: int = self.number("u8", what)
        room = (self.size - self.position) // least_bytes
        if count > room:
            raise self.refuse(f"{what} is {count}, what is left of the file has room for {room}")
        return count

    def text(self, what: str) -> str:
        """A string."""
        raw = self.take(self.count(f"length of {what}", 1), what)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            byte = f"byte {error.start} is 0x{raw[error.start]:02x}"
            raise self.refuse(f"{what} is not UTF-8: {byte}") from error

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        """A field's value."""
        if kind in NUMBERS:
            return self.number(NUMBERS[GGUFValueType(kind)], what)
        if kind == GGUFValueType.STRING:
            return self.text(what)
        if kind != GGUFValueType.ARRAY or depth == MAX_NESTING:
            raise self.refuse(f"{what} has a value of type {kind}, which is unknown")
        item = self.number("u4", f"type of the items of {what}")
        fixed = NUMBERS.get(item)
        size = np.dtype(fixed).itemsize if fixed else 8
        count = self.count(f"length of {what}", size)
        if count > MAX_ITEMS:
            raise self.refuse(f"{what} has {count} items, the limit is {MAX_ITEMS}")
        if fixed:
            dtype = np.dtype(fixed).newbyteorder(self._order)
            return np.frombuffer(self.take(count * size, what), dtype).tolist()
        return [self.value(item, f"{what}[{i}]", depth + 1) for i in range(count)]
