"""The order of a comparison, and that nobody is left out silently."""

import argparse

import pytest

from bench.compare import cell
from bench.peers.child import PeerFailed
from bench.peers.rounds import Comparison, Entry, Plan


class ScriptedChild:
    """Answers like a program; refuses `refuses`, dies at `dies`."""

    def __init__(self, name, calls, refuses=(), dies=()):
        self.name, self.calls, self.refuses, self.dies = name, calls, refuses, set(dies)
        self.running = False

    def start(self, _threads):
        self.running = True

    def ask(self, do, _timeout_s, **arguments):
        self.calls.append((self.name, do, arguments))
        if do in self.dies:
            self.dies.discard(do)
            self.running = False
            raise PeerFailed("it died")
        if do in self.refuses:
            raise PeerFailed("not given")
        return {
            "load": {"weights_bytes": 7, "kv_bytes_per_token": 3},
            "decode": {
                "ms": [100.0] * 2 + [float(i) for i in range(arguments.get("steps", 2) - 2)]
            },
            "prefill": {"ms": 9.0},
            "memory": {"peak_bytes": 11},
        }.get(do, {})

    def end(self):
        self.running = False


def comparison(names, calls, *, cells=((2, 5), (3, 4)), rounds=3, steps=8, **kinds):
    plan = Plan(list(cells), prefill=[6], rounds=rounds, steps=steps, threads=2)
    entries = [Entry(n, n, ScriptedChild(n, calls, **kinds.get(n, {}))) for n in names]
    made = Comparison(plan, entries)
    for entry in entries:
        made.load(entry)
    return made


def order(calls, do):
    return "".join(name for name, what, _ in calls if what == do)


def test_rounds_go_over_the_engines_in_turn_within_a_cell():
    calls = []
    made = comparison("abc", calls, rounds=2)
    made.decode()
    assert order(calls, "decode") == "abcabc" * 2
    assert order(calls, "fill") == "abc" * 2


def test_engines_go_one_after_the_other_where_all_their_caches_would_not_fit():
    calls = []
    made = comparison("ab", calls, rounds=2, cells=[(2, 5), (10, 5000)])
    made.decode()
    letters = {"fill": "f", "decode": "d", "drop": "x"}
    done = [name + letters[do] for name, do, _ in calls if do in letters]
    assert done[:8] == ["af", "bf", "ad", "bd", "ad", "bd", "ax", "bx"], "2 × 5 together"
    assert done[8:] == ["af", "ad", "ad", "ax", "bf", "bd", "bd", "bx"], "10 × 5000 in turn"


def test_all_engines_get_the_same_prompts_and_every_cell_and_round_others():
    calls = []
    made = comparison("ab", calls, rounds=2)
    made.decode()
    made.prefills()
    fills = [c["prompts"] for _, do, c in calls if do == "fill"]
    reads = [c["ids"] for _, do, c in calls if do == "prefill" and len(c["ids"]) == 6]
    assert [(len(p), len(p[0])) for p in fills] == [(2, 5)] * 2 + [(3, 4)] * 2
    assert fills[0] == fills[1]
    assert fills[0][0] != fills[0][1]
    assert reads[0] == reads[1] != reads[2] == reads[3]


def test_steps_after_another_engine_ran_are_not_counted():
    made = comparison("a", [], rounds=2, steps=3)
    made.decode()
    assert made.entries[0].times["decode 2x5"] == [0.0, 1.0, 2.0] * 2


def test_a_refused_cell_keeps_its_reason_and_the_others_go_on():
    made = comparison("ab", [], b={"refuses": ("fill",)})
    made.decode()
    made.prefills()
    a, b = made.entries
    assert b.refused == {"decode 2x5": "not given", "decode 3x4": "not given"}
    assert set(b.times) == {"prefill 6"}
    assert set(a.times) == {"decode 2x5", "decode 3x4", "prefill 6"}


def test_one_that_dies_is_loaded_again_for_the_next_cell():
    calls = []
    made = comparison("a", calls, rounds=2, a={"dies": ("decode",)})
    made.decode()
    (a,) = made.entries
    assert set(a.refused) == {"decode 2x5"}
    assert set(a.times) == {"decode 3x4"}
    assert order(calls, "load") == "aa"


def test_one_that_cannot_be_loaded_is_out_with_its_reason():
    calls = []
    made = comparison("ab", calls, a={"refuses": ("load",)})
    made.decode()
    assert made.entries[0].cannot == "not given"
    assert set(order(calls, "decode")) == {"b"}


def test_a_cell_is_batch_by_context():
    assert cell("8x1024") == (8, 1024)
    for wrong in ("8", "x8", "0x8", "8x", "8x0", "8 x 8"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not batch x context"):
            cell(wrong)
