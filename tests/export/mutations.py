"""Random damage to GGUF files and model folders: bytes, fields, values, tensors, whole files."""

import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tests.export.tiny_gguf import STRING, Fields, Raw, Tensors, gguf_bytes

EXTREMES = [0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1]
VALUES: list[Any] = [
    *EXTREMES, True, False, 0.0, 1e-30, 0.5, 1e30, float("inf"), float("nan"), "", "x", "llama",
    "\x00", "☃" * 50, [], [0], [1, 2, 3], ["a", "b"], [[1]], [0.5, 1.5],
]  # fmt: skip
JSON_VALUES: list[Any] = [
    *VALUES,
    None,
    -1,
    -0.5,
    {},
    {"type": "x"},
    {"a": {"b": 1}},
    [None],
    1e300,
]
STAND_INS = [
    b"",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    b"<!DOCTYPE html><html></html>",
    b"null",
    b"{}",
    b"\xff\xfe\x00",
    bytes(4096),
]
KEYS = ["head_dim", "num_layers", "auto_map", "rope_scaling", "quantization_config", "eos_token_id",
        "sliding_window", "layer_types", "tie_word_embeddings", "attention_bias", "is_decoder",
        "architectures", "dtype", "text_config", "num_experts", "use_cache"]  # fmt: skip
FIELDS = ["rope.scaling.type", "rope.scaling.factor", "attention.key_length", "expert_count",
          "attention.sliding_window", "attention.scale", "logit_scale"]  # fmt: skip


def damage_bytes(content: bytes, rng: random.Random, within: int) -> tuple[bytes, str]:
    """Change some bytes among the first `within`."""
    at, size = rng.randrange(within), rng.choice([1, 2, 4, 8, 64, 1024])
    changed = bytearray(content)
    how = rng.choice(["flip", "number", "cut", "delete", "insert", "repeat"])
    if how == "flip":
        for _ in range(rng.choice([1, 1, 3, 20])):
            changed[rng.randrange(within)] ^= 1 << rng.randrange(8)
    elif how == "number":
        width = rng.choice(["<I", "<Q"])
        number = rng.choice(EXTREMES) & (2 ** (8 * struct.calcsize(width)) - 1)
        changed[at : at + struct.calcsize(width)] = struct.pack(width, number)
    elif how == "cut":
        del changed[at:]
    elif how == "delete":
        del changed[at : at + size]
    elif how == "insert":
        changed[at:at] = rng.randbytes(size)
    else:
        changed[at:at] = changed[at : at + size]
    return bytes(changed), f"{how} at {at}"


def damage_gguf(fields: Fields, tensors: Tensors, rng: random.Random) -> tuple[bytes, str]:
    """The file, damaged; and how."""
    how = rng.choice(["bytes", "bytes", "field", "field", "field", "item", "new field", "tensor"])
    if how == "bytes":
        content = gguf_bytes(fields, tensors)
        data = sum(values.nbytes for values in tensors.values())
        return damage_bytes(content, rng, len(content) - rng.choice([0, data]))
    fields, tensors = dict(fields), dict(tensors)
    name = rng.choice(list(fields))
    if how == "field":
        value = rng.choice([*VALUES, None, Raw(struct.pack("<IQ", STRING, 2) + b"\xff\xfe")])
        fields[name] = value
        if value is None:
            del fields[name]
    elif how == "item":
        name = rng.choice([key for key, value in fields.items() if isinstance(value, list)])
        value, items = rng.choice(VALUES), list(fields[name])
        same = [v for v in VALUES if type(v) is type(items[0])] or ["x"]
        value = rng.choice(same)
        items[rng.randrange(len(items))] = value
        fields[name] = items[: rng.choice([len(items), len(items), 5, 0])]
    elif how == "new field":
        name, value = f"llama.{rng.choice(FIELDS)}", rng.choice(VALUES)
        fields[name] = value
    else:
        return damage_tensors(fields, tensors, rng)
    return gguf_bytes(fields, tensors), f"{how} {name} = {fields.get(name)!r:.60}"


def damage_tensors(fields: Fields, tensors: Tensors, rng: random.Random) -> tuple[bytes, str]:
    """The file with one tensor dropped, renamed, reshaped or filled; and how."""
    name = rng.choice(list(tensors))
    values = tensors.pop(name)
    changes: dict[str, Callable[[], None]] = {
        "drop": lambda: None,
        "rename": lambda: tensors.update({rng.choice(["a", name + "x", ""]): values}),
        "flatten": lambda: tensors.update({name: values.reshape(-1)}),
        "halve": lambda: tensors.update({name: values[: len(values) // 2]}),
        "transpose": lambda: tensors.update({name: np.ascontiguousarray(values.T)}),
        "fill": lambda: tensors.update(
            {name: np.full_like(values, rng.choice([np.nan, np.inf, 0.0, 1e38]))}
        ),
        "add": lambda: tensors.update({name: values, "rope_freqs.weight": np.ones(8, np.float32)}),
    }
    how = rng.choice(list(changes))
    changes[how]()
    return gguf_bytes(fields, tensors), f"{how} {name}"


def damage_folder(folder: Path, rng: random.Random) -> str:
    """Damage one file of a folder; says how."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    how = rng.choice(["bytes", "stand-in", "remove", "json", "json", "json", "json", "tensor"])
    path = rng.choice(files)
    if how == "bytes":
        content = path.read_bytes()
        damaged, what = damage_bytes(content, rng, min(len(content), rng.choice([64, 4096, 2**30])))
        path.write_bytes(damaged)
    elif how == "stand-in":
        what = ""
        path.write_bytes(rng.choice(STAND_INS))
    elif how == "remove":
        path.unlink()
        what = rng.choice(["", "into a folder"])
        if what:
            path.mkdir()
    elif how == "json":
        path = rng.choice([file for file in files if file.suffix == ".json"])
        what = damage_json(path, rng)
    else:
        path = folder / "model.safetensors"
        what = damage_safetensors(path, rng)
    return f"{how} {path.name} {what}"


def damage_json(path: Path, rng: random.Random) -> str:
    """Set, remove or add one value somewhere in a JSON file."""
    written = json.loads(path.read_text())
    place: Any = written
    trail = [path.name]
    while True:
        inner = list(place) if isinstance(place, dict) else list(range(len(place)))
        key: Any = rng.choice(inner) if inner else None
        deeper = inner and isinstance(place[key], (dict, list)) and place[key]
        if not deeper or rng.random() < 0.3:
            break
        place = place[key]
        trail.append(str(key))
    value = rng.choice(JSON_VALUES)
    if key is None or (isinstance(place, dict) and rng.random() < 0.2):
        key = rng.choice(KEYS)
        if isinstance(place, list):
            place.append(value)
        else:
            place[key] = value
    elif rng.random() < 0.2:
        del place[key]
        value = "(gone)"
    else:
        place[key] = value
    path.write_text(json.dumps(written))
    return f"{'.'.join(trail[1:])}[{key!r}] = {value!r:.60}"


def damage_safetensors(path: Path, rng: random.Random) -> str:
    """Drop, rename, reshape, retype or fill one tensor."""
    tensors = load_file(path)
    name = rng.choice(sorted(tensors))
    tensor = tensors.pop(name)
    changes: dict[str, Callable[[], torch.Tensor | None]] = {
        "drop": lambda: None,
        "flatten": lambda: tensor.reshape(-1),
        "halve": tensor[: len(tensor) // 2].clone,
        "empty": tensor[:0].clone,
        "bfloat16": tensor.bfloat16,
        "int8": lambda: tensor.to(torch.int8),
        "float64": tensor.double,
        "fill": lambda: torch.full_like(tensor, rng.choice([torch.nan, torch.inf, 0.0, 1e38])),
    }
    how = rng.choice([*changes, "rename"])
    changed = tensor if how == "rename" else changes[how]()
    if changed is not None:
        tensors[f"{name}.renamed" if how == "rename" else name] = changed
    save_file(tensors, path, {"format": "pt"})
    return f"{how} {name}"


def copy_of(folder: Path, target: Path) -> Path:
    """A fresh copy of a folder."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(folder, target))
