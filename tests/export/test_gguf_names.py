"""The names of a GGUF file's weights take no time that grows with the square of its blocks."""

from pathlib import Path
from typing import Any

import gguf
import pytest

from export.__main__ import main
from tests.export.tiny_gguf import tiny_fields, tiny_tensors, write_gguf


def test_the_table_of_names_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []

    def make(*asked: Any) -> Any:
        made.append(asked)
        return gguf.TensorNameMap(*asked)

    monkeypatch.setattr(gguf, "get_tensor_name_map", make)
    source = str(write_gguf(tmp_path / "tiny.gguf", tiny_fields(), tiny_tensors()))
    command = [source, "--out", str(tmp_path / "models" / "tiny")]
    assert [main([*command, "--only", step]) for step in ("resolve", "trace")] == [0, 0]
    assert len(made) == 1
