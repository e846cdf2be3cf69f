"""What an export takes, told before it begins."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from export import room
from export.__main__ import main
from export.errors import NoRoom
from export.room import Sizes, disk_bytes, memory_bytes, refuse_without_room, sizes_of
from tests.export.tiny import CONFIGS, save_tiny

SHAPES = {
    "model.embed_tokens.weight": (128_256, 2048),
    "model.norm.weight": (2048,),
    **{
        f"model.layers.{layer}.{name}": shape
        for layer in range(16)
        for name, shape in {
            "q": (2048, 2048),
            "k": (512, 2048),
            "v": (512, 2048),
            "o": (2048, 2048),
            "gate": (8192, 2048),
            "up": (8192, 2048),
            "down": (2048, 8192),
        }.items()
    },
}
"""Of Llama-3.2-1B."""


def test_sizes_are_those_of_the_tensors() -> None:
    assert sizes_of(SHAPES) == Sizes(
        weights=1_235_748_864, largest=128_256 * 2048, vocabulary=128_256, width=8192
    )
    assert sizes_of({"a": (8, 4), "b": (3,)}) == Sizes(35, 32, 8, 8)
    # A stack of experts is larger than the output layer, and has no vocabulary.
    experts = {"head": (100, 16), "up": (32, 24, 16), "down_blocks": (32, 16, 4, 3)}
    assert sizes_of(experts) == Sizes(1600 + 12288 + 2 * 6144, 12288, 100, 100)


def test_memory_grows_with_the_largest_matrix_and_not_with_the_layers_until_it_is_served() -> None:
    one_layer = {name: shape for name, shape in SHAPES.items() if ".layers." not in name or
                 ".layers.0." in name}  # fmt: skip
    whole, part = memory_bytes(sizes_of(SHAPES), "w8a8"), memory_bytes(sizes_of(one_layer), "w8a8")
    assert whole < 3e9
    assert part > 0.8 * whole


def test_a_7b_model_is_told_to_fit_into_12_gb_and_in_4_bits_into_8() -> None:
    sizes = Sizes(weights=7_615_616_512, largest=152_064 * 3584, vocabulary=152_064, width=18_944)
    assert 8e9 < memory_bytes(sizes, "w8a8") < 12e9
    assert memory_bytes(sizes, "int4") < 8e9


def test_kept_files_take_more_disk() -> None:
    sizes = sizes_of(SHAPES)
    kept, dropped = (disk_bytes(sizes, "w8a8", "float32", keep_work=keep) for keep in (True, False))
    assert dropped < kept < 30e9
    assert disk_bytes(sizes, "w8a8", "float16", keep_work=True) < kept


def test_a_machine_too_small_is_one_sentence_with_both_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000_000))
    with pytest.raises(NoRoom, match=rf"up to \d+\.\d GB of disk .* {tmp_path} has 5\.0 GB"):
        refuse_without_room(tmp_path, SHAPES, "w8a8", "float32", keep_work=False)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    monkeypatch.setattr(room, "memory_available", lambda: 900_000_000)
    with pytest.raises(NoRoom, match=r"GB of memory; 0\.9 GB of memory are available"):
        refuse_without_room(tmp_path, SHAPES, "w8a8", "float32", keep_work=False)
    monkeypatch.setattr(room, "memory_available", lambda: None)
    assert "GB of disk" in refuse_without_room(tmp_path, SHAPES, "w8a8", "float32", keep_work=False)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max", 8_000 * 1024), ("3000000\n", 2_000_000), ("99999999", 8_192_000)],
)
def test_memory_is_what_the_system_and_the_container_leave(
    limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:   8000 kB\n")
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("1000000\n")
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    assert room.memory_available() == expected


def test_an_export_without_room_ends_before_its_first_long_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny(tmp_path / "source", CONFIGS["llama"]())
    monkeypatch.setattr(room, "memory_available", lambda: 1)
    assert main([str(tmp_path / "source"), "--out", str(tmp_path / "models" / "out")]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(r"refused: this export takes up to .* available", last)
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file()]
