"""What commands print: tables for people, tabs for pipes, JSON for programs.

Rich is imported only where it draws: on a terminal.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
import msgspec

Row = Mapping[str, Any]

with_json: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON instead of a table."
)


def say(line: str) -> None:
    """Print a line of a command's result."""
    sys.stdout.write(f"{line}\n")


def note(line: str) -> None:
    """Print a line that is no result, and must not end up in a pipe."""
    sys.stderr.write(f"{line}\n")


def print_json(value: object) -> None:
    """Print a value as JSON for people and programs both."""
    encoded = msgspec.json.encode(value, enc_hook=str)
    say(msgspec.json.format(encoded, indent=2).decode())


def print_rows(
    rows: Sequence[Row], columns: Mapping[str, Callable[[Row], str]], *, as_json: bool
) -> None:
    """Print rows: a table on a terminal, else a line each with tabs between the cells.

    Args:
        rows: with values as JSON shows them.
        columns: titles → how a cell reads.
        as_json: print the rows themselves instead.
    """
    if as_json:
        print_json(rows)
        return
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    if not sys.stdout.isatty():
        for line in cells:
            say("\t".join(line))
        return
    from rich.console import Console  # noqa: PLC0415 # pipes do without
    from rich.table import Table  # noqa: PLC0415 # as above

    table = Table(*columns, box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for line in cells:
        table.add_row(*(_plain(text) for text in line))
    Console().print(table)


def print_figures(figures: Mapping[str, object], *, as_json: bool) -> None:
    """Print names and values, one pair a line."""
    if as_json:
        print_json(figures)
        return
    width = max(map(len, figures), default=0)
    for name, value in figures.items():
        say(f"{name:<{max(width, 22)}} {value}")


def _plain(text: str) -> Any:
    """Keep rich from reading markup in what is somebody's text."""
    from rich.text import Text  # noqa: PLC0415 # only on a terminal

    return Text(text)


def gigabytes(size: float) -> str:
    """Bytes as people say them: `174 MB`, `6.0 GB`."""
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
