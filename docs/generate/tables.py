"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; a cell may hold anything that fits on one line of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines) + "\n"


def cell(text: str) -> str:
    """Keep a text inside its cell: on one line, and without bars that end it."""
    return " ".join(text.split()).replace("|", "\\|")


def code(value: object) -> str:
    """Write a value as code; nothing for an empty one."""
    return f"`{value}`" if str(value) else ""
