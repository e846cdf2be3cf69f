"""The answers are what was recorded. `python -m tests.corpus record` after an intended change."""

import difflib

import pytest

from tests.corpus.asked import GROUPS
from tests.corpus.playing import RECORDS, play, record_path


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return play(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("name", [group.name for group in GROUPS])
def test_every_answer_is_the_recorded_one(played: dict[str, str], name: str):
    recorded = record_path(name).read_text(encoding="utf-8")
    if played[name] != recorded:
        diff = difflib.unified_diff(
            recorded.split("\n"), played[name].split("\n"), "recorded", "answered", lineterm="", n=8
        )
        pytest.fail("\n".join(diff), pytrace=False)


def test_every_record_has_its_group_and_every_request_a_name_of_its_own():
    assert {path.stem for path in RECORDS.iterdir()} == {group.name for group in GROUPS}
    for group in GROUPS:
        names = [request.name for request in group.requests]
        assert len(set(names)) == len(names), sorted(n for n in names if names.count(n) > 1)
