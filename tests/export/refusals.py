"""Run an export that must end in one sentence."""

from pathlib import Path

import pytest

from export.__main__ import main

MOST_CHARACTERS = 700


def refusal(source: Path, out: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The sentence with which an export is refused, without `refused: `; nothing is left behind."""
    capsys.readouterr()
    assert main([str(source), "--out", str(out / "model"), *options]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("refused: ")
    assert "Traceback" not in last
    assert len(last) <= MOST_CHARACTERS, last
    assert [path for path in out.rglob("*") if path.is_file()] == []
    return last.removeprefix("refused: ")
