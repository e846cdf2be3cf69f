"""Settings come from flags, the environment and a file, and a wrong one is never passed over."""

from pathlib import Path

import pytest

from app.setting_sources import PREFIX, Given
from app.settings import InvalidSetting, Settings, effective_settings, load_settings


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


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "llmhost.toml"


def test_a_flag_comes_before_the_environment_that_before_the_file_and_that_before_the_default(file):
    file.write_text("slots = 1\nport = 1\nmax_waiting = 1\n")
    environ = {"LLMHOST_SLOTS": "2", "LLMHOST_PORT": "2"}
    settings, origins = effective_settings(environ, [Given("slots", 3, "flag", "--slots")])
    assert (settings.slots, settings.port, settings.max_waiting) == (3, 2, 1)
    assert settings.default_max_tokens == Settings().default_max_tokens
    assert {name: given.place for name, given in origins.items()} == {
        "slots": "--slots",
        "port": "LLMHOST_PORT",
        "max_waiting": "llmhost.toml, line 3: max_waiting",
    }


def test_a_file_has_the_types_of_the_fields(file):
    file.write_text('models_dir = "/srv"\nidle_unload_s = 5\nrequire_auth = true\nmodel = ""\n')
    settings = load_settings({})
    assert (settings.models_dir, settings.idle_unload_s) == (Path("/srv"), 5.0)
    assert (settings.require_auth, settings.model) == (True, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# one\nslots = 'x'", "llmhost.toml, line 2: slots='x': expected int >= 0"),
        ("require_auth = 'no'", "llmhost.toml, line 1: require_auth='no': expected bool"),
        ("slotz = 1", "llmhost.toml, line 1: slotz: no such setting; there are host, port, "),
        ("[slots]\na = 1", "llmhost.toml, line 1: slots={'a': 1}: expected int >= 0"),
        ("slots 8", "llmhost.toml: Expected '=' after a key in a key/value pair (at line 1,"),
        ("\x00", "llmhost.toml: "),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_place(file, text, message):
    file.write_text(text)
    with pytest.raises(InvalidSetting) as refusal:
        load_settings({})
    assert str(refusal.value).startswith(message)


def test_a_wrong_flag_is_said_with_its_name():
    with pytest.raises(InvalidSetting) as refusal:
        load_settings({}, [Given("max_waiting", "many", "flag", "--max-waiting")])
    assert str(refusal.value) == "--max-waiting='many': expected int >= 0"


def test_another_file_can_be_named_and_none(file, tmp_path):
    file.write_text("slots = 1")
    (tmp_path / "other.toml").write_text("slots = 2")
    assert load_settings({}).slots == 1
    assert load_settings({"LLMHOST_CONFIG": "other.toml"}).slots == 2
    assert load_settings({"LLMHOST_CONFIG": ""}).slots == 0
    with pytest.raises(InvalidSetting, match="LLMHOST_CONFIG='no': there is no such file"):
        load_settings({"LLMHOST_CONFIG": "no"})
