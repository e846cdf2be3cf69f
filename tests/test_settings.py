"""Settings come from the environment, and a wrong one is never passed over."""

from pathlib import Path

import pytest

from app.settings import PREFIX, InvalidSetting, Settings, load_settings


def test_values_take_their_fields_types():
    settings = load_settings(
        {
            "LLMHOST_SLOTS": "8",
            "LLMHOST_DRAIN_TIMEOUT_S": "1.5",
            "LLMHOST_MODELS_DIR": "/srv/models",
            "LLMHOST_REQUIRE_AUTH": "true",
            "PATH": "/bin",
        }
    )
    assert (settings.slots, settings.drain_timeout_s) == (8, 1.5)
    assert settings.models_dir == Path("/srv/models")
    assert settings.require_auth is True
    assert settings.max_waiting == Settings().max_waiting


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MAX_WAITING", "many", "LLMHOST_MAX_WAITING='many': expected int >= 0"),
        ("MAX_WAITING", "-1", "LLMHOST_MAX_WAITING='-1': expected int >= 0"),
        ("EXECUTION_PROVIDER", "tpu", "='tpu': expected auto, cpu or cuda"),
        ("MAX_WATING", "5", "LLMHOST_MAX_WATING: no such setting; there are LLMHOST_"),
    ],
)
def test_a_wrong_value_or_name_is_refused_with_what_was_expected(name, value, message):
    with pytest.raises(InvalidSetting) as refusal:
        load_settings({PREFIX + name: value})
    assert message in str(refusal.value)


def test_all_problems_are_listed_at_once():
    with pytest.raises(InvalidSetting) as refusal:
        load_settings({"LLMHOST_SLOTS": "x", "LLMHOST_NOPE": "1"})
    assert len(str(refusal.value).splitlines()) == 2
