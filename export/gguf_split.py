"""Join the parts of a split GGUF file, which no reader after this one takes.

Large models are published as `name-00001-of-00003.gguf` and so on; the first part has the
metadata, each has some of the tensors. Data are copied tensor by tensor from mapped memory.

Source: gguf-split of llama.cpp for the names and the fields `split.*`.
"""

import re
from pathlib import Path
from typing import Any, Final

import gguf

from export.errors import SourceUnusable
from export.file_checks import shown
from export.gguf_file import GgufFile, read_gguf

PART: Final = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
MAX_PARTS: Final = 1000
OWN_FIELDS: Final = ("GGUF.", "split.")
"""Prefixes of what describes the file itself."""


def name_of(path: Path) -> str:
    """The model's name, which is a file's without its ending and the number of its part."""
    match = PART.fullmatch(path.name)
    return match["stem"] if match else path.stem


def whole(path: Path, work: Path) -> Path:
    """The file itself, or, for a part of a split one, all its parts joined in `work`.

    Raises:
        SourceUnusable: a part is missing, damaged or of another file.
    """
    file = read_gguf(path)
    count = file.fields.get("split.count", 1)
    if count in (0, 1):
        return path
    match = PART.fullmatch(path.name)
    if match is None or int(match["count"]) != count or not 1 < count <= MAX_PARTS:
        raise SourceUnusable(
            f"{path}: split.count is {shown(count)}, expected a name such as "
            "name-00001-of-00002.gguf with the same count"
        )
    paths = [path.with_name(_name(match["stem"], i, count)) for i in range(1, count + 1)]
    parts = [_part(part, number, count) for number, part in enumerate(paths)]
    held, told = sum(len(part.shapes) for part in parts), parts[0].fields.get("split.tensors.count")
    if told is not None and told != held:
        raise SourceUnusable(
            f"{paths[0]}: split.tensors.count is {shown(told)}, its {count} parts hold {held}"
        )
    out = work / f"{match['stem']}.gguf"
    _join(parts, out)
    return out


def _name(stem: str, number: int, count: int) -> str:
    return f"{stem}-{number:05}-of-{count:05}.gguf"


def _part(path: Path, number: int, count: int) -> GgufFile:
    if not path.is_file():
        raise SourceUnusable(f"{path} is missing, part {number + 1} of {count}")
    file = read_gguf(path)
    for field, expected in (("split.count", count), ("split.no", number)):
        if file.fields.get(field) != expected:
            raise SourceUnusable(
                f"{path}: {field} is {shown(file.fields.get(field))}, expected {expected}"
            )
    return file


def _join(parts: list[GgufFile], out: Path) -> None:
    names: set[str] = set()
    for part in parts:
        for name in part.shapes:
            if name in names:
                raise SourceUnusable(f"{part.path}: tensor {shown(name)} is in an earlier part too")
            names.add(name)
    readers: list[Any] = [gguf.GGUFReader(part.path) for part in parts]
    architecture = parts[0].fields.get("general.architecture", "")
    writer = gguf.GGUFWriter(out.with_suffix(".part"), architecture)
    for field in readers[0].fields.values():
        if field.name.startswith(OWN_FIELDS) or field.name == "general.architecture":
            continue  # the writer has written the last one
        kind, *inner = field.types
        writer.add_key_value(field.name, field.contents(), kind, inner[-1] if inner else None)
    tensors = [tensor for reader in readers for tensor in reader.tensors]
    for tensor in tensors:
        data = tensor.data
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(tensor.data)
    writer.close()
    out.with_suffix(".part").replace(out)
