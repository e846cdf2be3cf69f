"""Whatever happens to a source, its export ends: with a model, or with one sentence.

`SOURCES=2000` in the environment damages that many GGUF files and folders, half of each; without
it a few hundred, so that the suite stays short. `SOURCES_SEED` draws others.
"""

import os
import random
import shutil
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from transformers import PretrainedConfig

from export.__main__ import main
from tests.export.mutations import copy_of, damage_folder, damage_gguf
from tests.export.refusals import MOST_CHARACTERS
from tests.export.tiny import CONFIGS, make_model, save_tiny
from tests.export.tiny_gguf import tiny_fields, tiny_tensors

NUM_SOURCES = int(os.environ.get("SOURCES", "200"))
SEED = int(os.environ.get("SOURCES_SEED", "0"))
BATCH = 20
HANG_S = 120
"""An export of these takes two seconds."""

# What other libraries warn of is not the question here, and must not become an error inside them.
pytestmark = pytest.mark.filterwarnings("ignore")


class Hang(BaseException):
    """An export that doesn't end; nothing may take it for an error of the source."""


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise Hang(f"no end after {HANG_S} s")

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def smallest() -> PretrainedConfig:
    """A llama of one layer: many of these are exported to the end."""
    config = CONFIGS["llama"]()
    config.num_hidden_layers = 1
    return config


def batches() -> list[range]:
    numbers = range(NUM_SOURCES // 2)
    return [numbers[i : i + BATCH] for i in range(0, len(numbers), BATCH)]


def outcome(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What is wrong with how an export ended; empty if nothing is."""
    shutil.rmtree(out, ignore_errors=True)
    capsys.readouterr()
    signal.alarm(HANG_S)
    try:
        done = main([str(source), "--out", str(out / "model")])
    except BaseException as error:  # a panic in Rust is one, and none of Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return "".join(traceback.format_exception(error)[-6:])
    finally:
        signal.alarm(0)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    files = [path for path in out.rglob("*") if path.is_file()]
    if done == 0:
        return "" if files else "no model"
    if not said.startswith("refused: ") or len(said) > MOST_CHARACTERS:
        return f"not a sentence: {said}"
    return f"left {files}" if files else ""


@pytest.mark.parametrize("numbers", batches(), ids=str)
def test_damaged_gguf_becomes_a_model_or_one_sentence(
    numbers: range, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = smallest()
    fields, tensors = tiny_fields(config), tiny_tensors(make_model(config))
    wrong = []
    for number in numbers:
        rng = random.Random(f"gguf {SEED} {number}")
        content, how = damage_gguf(fields, tensors, rng)
        (tmp_path / "m.gguf").write_bytes(content)
        problem = outcome(tmp_path / "m.gguf", tmp_path / "out", capsys)
        if problem:
            wrong.append(f"{number}, {how}: {problem}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("numbers", batches(), ids=str)
def test_damaged_folder_becomes_a_model_or_one_sentence(
    numbers: range, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny(tmp_path / "whole", smallest())
    wrong = []
    for number in numbers:
        rng = random.Random(f"folder {SEED} {number}")
        source = copy_of(tmp_path / "whole", tmp_path / "source")
        how = damage_folder(source, rng)
        problem = outcome(source, tmp_path / "out", capsys)
        if problem:
            wrong.append(f"{number}, {how}: {problem}")
    assert not wrong, "\n".join(wrong)
