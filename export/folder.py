"""Refuse a Hugging Face folder that is damaged, or is more than the model that would be read of it.

Looks at the files' own headers before Transformers is asked, which reports some damage in a
traceback, some after having allocated what a file claims, and some not at all. Knows which files
Transformers reads, not what models there are.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from safetensors import safe_open

from app.contract.sampling import SamplingDefaults
from export.errors import SourceUnusable
from export.file_checks import read_object, read_text, refuse_stand_in, refusing, shown

CONFIG: Final = "config.json"
GENERATION_CONFIG: Final = "generation_config.json"
OBJECTS: Final = (
    *(CONFIG, GENERATION_CONFIG, "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json"),
)
"""JSON files that Transformers reads where they are there."""
TEXTS: Final = ("chat_template.jinja", "merges.txt")
"""Texts that it reads where they are there."""
WEIGHTS: Final = "model.safetensors"
WEIGHTS_INDEX: Final = "model.safetensors.index.json"
PICKLED: Final = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""Read where there are no safetensors."""
ADAPTERS: Final = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
REPEATED: Final = re.compile(r"layers?$|blocks?$|experts$")
"""Ends of the names of numbers that Transformers makes as many modules of."""
MAX_REPEATED: Final = 4096


class StoredTensor(NamedTuple):
    """What a safetensors file's header says of a tensor."""

    file: Path
    dtype: str
    """As the header names it: `F16`, `I32`, `F8_E4M3` and others."""
    shape: tuple[int, ...]


def check_folder(folder: Path) -> None:
    """Check all that can be checked without a model.

    Raises:
        SourceUnusable: a file is missing or damaged, or the folder has an adapter.
    """
    for name in ADAPTERS:
        if (folder / name).exists():
            raise SourceUnusable(
                f"{folder / name} is an adapter beside a model, and which of them is meant is not "
                "clear: give the adapter a folder of its own"
            )
    if not (folder / CONFIG).is_file():
        raise SourceUnusable(f"{folder} has no {CONFIG}")
    for name in OBJECTS:
        if (folder / name).exists():
            read_object(folder / name)
    for name in TEXTS:
        if (folder / name).exists():
            read_text(folder / name)
    _refuse_endless(folder / CONFIG, read_object(folder / CONFIG))
    weight_shapes(folder)


def stored_tensors(folder: Path) -> Mapping[str, StoredTensor] | None:
    """Tensors of the folder's safetensors files by name; None if its weights are pickled.

    Raises:
        SourceUnusable: there are no weights, or a file of them is damaged.
    """
    if (folder / WEIGHTS).exists():
        files = [folder / WEIGHTS]
    elif (folder / WEIGHTS_INDEX).exists():
        files = list(_shards(folder / WEIGHTS_INDEX))
    else:
        pickled = [folder / name for name in PICKLED if (folder / name).exists()]
        if not pickled:
            raise SourceUnusable(f"{folder} has no {WEIGHTS}, {WEIGHTS_INDEX} or {PICKLED[0]}")
        for path in pickled:
            refuse_stand_in(path)
        return None
    found: dict[str, StoredTensor] = {}
    for path in files:
        refuse_stand_in(path)
        with refusing(str(path)), safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                header = tensors.get_slice(name)
                found[name] = StoredTensor(path, header.get_dtype(), tuple(header.get_shape()))
    return found


def weight_shapes(folder: Path) -> Mapping[str, tuple[int, ...]] | None:
    """Shapes of the folder's tensors, as they are stored; None if its weights are pickled.

    Raises:
        SourceUnusable: there are no weights, or a file of them is damaged.
    """
    found = stored_tensors(folder)
    return None if found is None else {name: tensor.shape for name, tensor in found.items()}


def num_elements(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Numbers in all tensors together."""
    return sum(math.prod(shape) for shape in shapes.values())


def end_ids_of(path: Path) -> tuple[int, ...]:
    """The token ids that a file gives as `eos_token_id`: one, several or none.

    Raises:
        SourceUnusable: it is something else.
    """
    if not path.is_file():
        return ()
    value = read_object(path).get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token_id in ids:
        if type(token_id) is not int:
            raise SourceUnusable(f"{path}: eos_token_id is {shown(value)}, expected token ids")
    return tuple(ids)


def sampling_of(path: Path) -> SamplingDefaults:
    """How a `generation_config.json` would have tokens chosen; nothing where it doesn't sample.

    Raises:
        SourceUnusable: a value is no number, or outside what it may be.
    """
    config = read_object(path) if path.is_file() else {}
    if not config.get("do_sample"):
        return SamplingDefaults()
    names = SamplingDefaults.__struct_fields__
    said = {name: config[name] for name in names if config.get(name) is not None}
    try:
        return msgspec.convert(said, SamplingDefaults)
    except msgspec.ValidationError as error:
        raise SourceUnusable(f"{path}: {error}") from error


def _shards(index: Path) -> Iterator[Path]:
    """The weight files that an index names."""
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise SourceUnusable(f"{index}: weight_map is {shown(weight_map)}, expected file names")
    for name in sorted({str(name) for name in weight_map.values()}):
        if not (index.parent / name).is_file():
            raise SourceUnusable(f"{index}: weight_map names {shown(name)}, which is missing")
        yield index.parent / name


def _refuse_endless(path: Path, config: Mapping[str, Any]) -> None:
    """Bound the numbers that Transformers counts to while it only reads the configuration."""
    for name, value in config.items():
        if isinstance(value, dict):
            _refuse_endless(path, value)
        elif REPEATED.search(name) and isinstance(value, (int, float)) and value > MAX_REPEATED:
            raise SourceUnusable(f"{path}: {name} is {value}, the limit is {MAX_REPEATED}")
