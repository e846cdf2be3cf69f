"""`llmhost settings`: the settings that count, and where each of them stands."""

import re
from typing import Any, Final

import click
import msgspec

from app.cli.options import Chosen, with_settings
from app.cli.output import print_rows, with_json

SECRETS: Final = {"jwt_secret"}
HIDDEN: Final = "(set)"
_PASSWORD: Final = re.compile(r"(?<=:)[^:/@][^@]*(?=@)")
"""What stands between the name and the host of a URL."""


@click.command()
@with_settings()
@with_json
@click.option("--all/--changed", "all_", default=True, help="Also those with their default.")
def settings(chosen: Chosen, as_json: bool, all_: bool) -> None:
    """Show the settings that count, and where they stand. Secrets are not shown."""
    rows = rows_of(chosen)
    print_rows(
        rows if all_ else [row for row in rows if row["origin"] != "default"],
        {
            "setting": lambda row: row["name"],
            "value": lambda row: str(row["value"]),
            "from": lambda row: row["place"] or "default",
        },
        as_json=as_json,
    )


def rows_of(chosen: Chosen) -> list[dict[str, Any]]:
    """Every setting with its value and origin, in the order of the settings' page."""
    rows = []
    for name, value in msgspec.structs.asdict(chosen.settings).items():
        given = chosen.origins.get(name)
        rows.append(
            {
                "name": name,
                "value": shown(name, value),
                "origin": "default" if given is None else given.kind,
                "place": None if given is None else given.place,
            }
        )
    return rows


def shown(name: str, value: object) -> object:
    """What may be printed of a setting: no secret, and no password in a URL."""
    if name in SECRETS and value:
        return HIDDEN
    if name == "database_url" and value:
        return _PASSWORD.sub("***", str(value))
    return str(value) if not isinstance(value, bool | int | float | str) else value
