"""A model in several GGUF files is the model in one."""

from pathlib import Path

import numpy as np
import pytest

from export.__main__ import main
from export.gguf_file import read_gguf
from export.source import model_id_of
from tests.export.refusals import refusal
from tests.export.tiny_gguf import tiny_fields, tiny_tensors, write_gguf

COUNT = 3


def write_parts(folder: Path) -> list[Path]:
    """The tiny llama in parts, as gguf-split writes them."""
    tensors = list(tiny_tensors().items())
    parts = []
    for number in range(COUNT):
        path = folder / f"Tiny-7B-{number + 1:05}-of-{COUNT:05}.gguf"
        fields = {"split.no": number, "split.count": COUNT, "split.tensors.count": len(tensors)}
        own = dict(tensors[number::COUNT])
        parts.append(write_gguf(path, (tiny_fields() if number == 0 else {}) | fields, own))
    return parts


def trace(source: Path, out: Path) -> int:
    return max(main([str(source), "--out", str(out), "--only", s]) for s in ("resolve", "trace"))


@pytest.mark.parametrize("given", range(COUNT))
def test_parts_are_joined_whichever_is_named(given: int, tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    single = write_gguf(tmp_path / "single.gguf", tiny_fields(), tiny_tensors())
    assert model_id_of(str(parts[given])) == "local/Tiny-7B"
    assert trace(parts[given], tmp_path / "models" / "m") == 0
    joined, whole = read_gguf(tmp_path / "models/.work/m/Tiny-7B.gguf"), read_gguf(single)
    assert joined.fields == whole.fields
    assert joined.shapes == whole.shapes
    assert joined.path.stat().st_size == pytest.approx(single.stat().st_size, abs=64)


def test_a_missing_part_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, _ = write_parts(tmp_path)
    second.unlink()
    said = refusal(first, tmp_path / "models", capsys)
    assert said.endswith("Tiny-7B-00002-of-00003.gguf is missing, part 2 of 3")


def test_a_part_of_another_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = write_parts(tmp_path)
    second.write_bytes(third.read_bytes())
    said = refusal(first, tmp_path / "models", capsys)
    assert said.endswith("Tiny-7B-00002-of-00003.gguf: split.no is 2, expected 1")


def test_a_tensor_that_is_there_twice_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, _ = write_parts(tmp_path)
    name = next(iter(read_gguf(first).shapes))
    fields = {"split.no": 1, "split.count": COUNT}
    values = np.zeros(1, np.float32)
    held = dict(list(tiny_tensors().items())[1::COUNT])
    held.pop(next(iter(held)))
    write_gguf(second, fields, held | {name: values})
    said = refusal(first, tmp_path / "models", capsys)
    assert said.endswith(f"tensor {name!r} is in an earlier part too")
