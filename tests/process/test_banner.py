"""What a start says on a terminal."""

import pytest

from app.process.banner import banner
from app.settings import Settings
from tests.fakes import FakeEngine, FakeModel, fake_manifest

URL = "http://127.0.0.1:8000"


def rows(text: str) -> dict[str, str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return {line.split("  ")[0]: line.partition("  ")[2].strip() for line in lines[1:]}


def test_it_names_addresses_and_the_model_with_its_slots():
    said = rows(
        banner(
            Settings(),
            [URL],
            [FakeModel(FakeEngine(()), manifest=fake_manifest("tiny/a")).state()],
            exposed=False,
        )
    )
    assert said["Address"] == f"{URL}  (this machine alone)"
    assert said["OpenAI"] == f"{URL}/v1"
    assert said["Model"].startswith("tiny/a, ")
    assert "slots of" in said["Model"]
    none = rows(banner(Settings(), [URL], [], exposed=True))
    assert none["Model"].startswith("none yet")
    assert none["Address"].endswith("(others can reach it)")


@pytest.mark.parametrize(
    ("settings", "open_", "closed"),
    [
        ({}, "without a token; registration", "LLMHOST_REQUIRE_AUTH=true closes the rest"),
        ({"require_auth": True}, "registration", "generation: a token; models: an admin"),
        ({"require_auth": True, "registration": "closed"}, "nothing but /health", "generation: a"),
    ],
)
def test_it_says_what_is_open_and_what_is_not(settings, open_, closed):
    said = rows(banner(Settings(**settings), [URL], [], exposed=False))
    assert said["Open"].endswith(open_)
    assert closed in said["Closed"]
