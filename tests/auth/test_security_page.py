"""SECURITY.md names tests that are there, and the limits that are the defaults."""

import re
from pathlib import Path

from app.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
TABLE = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
NAME = re.compile(r"`(test_\w+)`")


def test_every_test_that_it_names_is_there():
    written = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    there = set(re.findall(r"def (test_\w+)\(", written))
    named = set(NAME.findall(PAGE))
    assert len(named) > 40, "the premise"
    assert named <= there


def test_what_is_held_names_the_test_that_holds_it():
    states = {line: line.split(" | ")[2] for line in TABLE}
    assert set(states.values()) == {"held", "partly", "no"}
    assert not [line for line, state in states.items() if state == "held" and not NAME.search(line)]


def test_every_chapter_has_a_row():
    assert [f"V{n}" for n in range(2, 15)] == re.findall(r"^\| (V\d+) ", PAGE, re.MULTILINE)


def test_its_figures_are_the_defaults():
    defaults = Settings()
    for figure in (
        f"try {defaults.login_attempts_per_address} passwords per minute",
        f"try {defaults.login_attempts_per_account} passwords per minute",
        f"try {defaults.login_attempts_from_new_addresses} passwords per hour",
        f"has {defaults.registrations_per_address} per hour",
    ):
        assert figure in " ".join(PAGE.split()), figure
