"""A peer's process: what it prints, refuses or dies of never reaches the figures."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.peers.child import Child, PeerFailed

LOAD = {"model": "abc", "threads": 2, "batches": [[3, 5]]}


@pytest.fixture
def child(tmp_path):
    child = Child(Path(sys.executable), "tests.bench.counting_program", tmp_path / "log")
    child.start(threads=2)
    yield child
    child.end()


def state(child):
    status = Path(f"/proc/{child.pid}/status").read_text()
    return status.partition("State:")[2].split()[0]


def test_what_a_library_prints_is_not_taken_for_an_answer(child, tmp_path):
    assert child.ask("load", 60, **LOAD) == {"weights_bytes": 3, "kv_bytes_per_token": 2}
    assert "even below Python" in (tmp_path / "log").read_text()


def test_every_step_is_timed(child):
    child.ask("fill", 60, prompts=[[1, 2], [3, 4]])
    times = child.ask("decode", 60, steps=4)["ms"]
    assert len(times) == 4
    assert min(times) > 0


def test_it_stands_still_between_commands(child):
    child.ask("load", 60, **LOAD)
    give_up = time.monotonic() + 10
    while state(child) != "T" and time.monotonic() < give_up:
        time.sleep(0.01)
    assert state(child) == "T"
    assert child.ask("memory", 60)["peak_bytes"] > 1e6, "and goes on when it is asked"


def test_a_refusal_carries_its_reason_and_the_process_goes_on(child):
    with pytest.raises(PeerFailed, match=r"^nothing to read$"):
        child.ask("prefill", 60, ids=[])
    with pytest.raises(PeerFailed, match=r"^ValueError: no logits of 2 tokens in x\.npy$"):
        child.ask("logits", 60, ids=[1, 2], out="x.npy")
    assert child.ask("load", 60, **LOAD)["weights_bytes"] == 3


def test_a_death_names_the_exit_code_and_a_new_start_works(child):
    with pytest.raises(PeerFailed, match="ended with 3"):
        child.ask("drop", 60)
    assert not child.running
    child.start(threads=2)
    assert child.ask("load", 60, **LOAD)["weights_bytes"] == 3


def test_one_that_is_too_slow_is_ended(child):
    child.ask("load", 60, **LOAD)
    pid = child.pid
    with pytest.raises(PeerFailed, match="no answer to prefill in 0 s"):
        child.ask("prefill", 0.3, ids=[1])
    assert not child.running
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_dies_with_its_parent_even_while_it_stands_still(tmp_path):
    code = (
        "import sys, pathlib; from bench.peers.child import Child;"
        "child = Child(pathlib.Path(sys.executable), 'tests.bench.counting_program',"
        " pathlib.Path(sys.argv[1])); child.start(1); child.ask('memory', 60);"
        "print(child.pid, flush=True); import os; os._exit(0)"
    )
    parent = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "log"], capture_output=True, text=True, check=True
    )
    give_up = time.monotonic() + 10
    status = Path(f"/proc/{int(parent.stdout)}/status")
    while status.exists() and "zombie" not in status.read_text() and time.monotonic() < give_up:
        time.sleep(0.01)
    assert not status.exists() or "zombie" in status.read_text()
