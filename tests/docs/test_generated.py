"""The parts of the manual that are written from the code say all that the code knows."""

import msgspec

from app.cli.main import SECTIONS
from app.dialects.kit.refusals import ACCOUNT_STATUSES, STATUSES, row_of
from app.errors import Error
from app.setting_sources import PREFIX
from app.settings import Settings, load_settings
from docs.generate import PARTS, PLACE, with_parts
from docs.generate.application import dialects, openapi
from docs.generate.errors import sample, statuses, tree
from docs.generate.settings import as_variable, described, grouped


def test_every_setting_is_in_one_group_and_has_a_text() -> None:
    fields = [field for group in grouped().values() for field in group]
    assert fields == list(Settings.__struct_fields__)
    assert len(grouped()) > 3
    assert all(described()[field].endswith(".") for field in fields)


def test_every_setting_has_a_heading_and_tells_its_default() -> None:
    lines = PARTS["settings"]().splitlines()
    for field in Settings.__struct_fields__:
        below = lines[lines.index(f"### {PREFIX}{field.upper()}") + 2]
        shown = as_variable(getattr(Settings(), field))
        assert below.endswith(f"default: {f'`{shown}`' if shown else 'empty'}*")
    assert "*whole number from 0; default: `0`*" in lines


def test_a_default_as_the_page_shows_it_is_the_value_without_the_variable() -> None:
    defaults = msgspec.structs.asdict(Settings())
    variables = {PREFIX + name.upper(): as_variable(value) for name, value in defaults.items()}
    assert msgspec.structs.asdict(load_settings(variables)) == defaults


def test_every_error_has_the_status_of_its_dialects_table() -> None:
    kinds = list(tree(Error))
    assert len(kinds) > 20
    for dialect, table in (("LocalLab", STATUSES), ("LLM Host", ACCOUNT_STATUSES)):
        assert statuses()[dialect] == [row_of(table, sample(kind)) for kind in kinds]
    assert statuses().keys() == dialects().keys()
    page = PARTS["errors"]()
    assert all(f"`{kind.code}`" in page for kind in kinds)


def test_every_endpoint_has_a_heading() -> None:
    page = PARTS["endpoints"]().splitlines()
    for path, methods in openapi()["paths"].items():
        assert {f"### {method.upper()} {path}" for method in methods} <= set(page)


def test_a_field_is_told_with_its_type_limits_default_and_text() -> None:
    rows = PARTS["endpoints"]().splitlines()
    assert "| `temperature` | number, 0 to 2 | `0.7` | 0 is greedy. |" in rows
    assert "| `password` | string, 8 to 1,024 characters | required |  |" in rows


def test_every_command_has_a_heading_and_its_options() -> None:
    page = PARTS["command-line"]().splitlines()
    for command in (name for section in SECTIONS.values() for name in section):
        assert f"### llmhost {command}" in page
    assert "### llmhost users create" in page
    assert "| `--admin` | As an administrator. |" in page


def test_metrics_are_named_as_queries_write_them() -> None:
    page = PARTS["metrics"]()
    for name in ("llmhost_generation_tokens_total", "llmhost_inter_token_latency_seconds"):
        assert f"| `{name}` |" in page
    assert "_created" not in page


def test_a_comment_on_a_line_of_its_own_is_replaced() -> None:
    page = with_parts("# A\n\n<!-- generated: metrics -->\n\nafter")
    assert PARTS["metrics"]() in page
    assert page.endswith("after")
    assert not PLACE.search(page)
