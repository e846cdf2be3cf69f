"""docs/settings.md says what app/settings.py does: every setting, once, with its default."""

import re
from pathlib import Path

import msgspec

from app.settings import PREFIX, Settings, load_settings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
ROW = re.compile(rf"\| `({PREFIX}\w+)` \| (?:`(.*?)` )?\| (.+) \|")


def rows() -> list[tuple[str, str, str]]:
    """(variable, default, meaning) of every line that begins like a setting's row."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{PREFIX}")]
    matches = [(line, ROW.fullmatch(line)) for line in lines]
    assert not [line for line, match in matches if match is None], "expected three cells"
    return [(match[1], match[2] or "", match[3]) for _, match in matches if match is not None]


def test_each_setting_has_one_row() -> None:
    variables = [variable for variable, _, _ in rows()]
    fields = Settings.__struct_fields__
    assert sorted(variables) == sorted(PREFIX + field.upper() for field in fields)


def test_a_default_as_the_page_shows_it_is_the_value_without_the_variable() -> None:
    shown = load_settings({variable: default for variable, default, _ in rows()})
    assert msgspec.structs.asdict(shown) == msgspec.structs.asdict(Settings())
