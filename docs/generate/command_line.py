"""The command line: what `llmhost COMMAND --help` says of each command."""

import inspect
from collections.abc import Iterator
from typing import Final

import click

from app.cli.main import NAME, SECTIONS, llmhost
from docs.generate.tables import code, table

EVERYWHERE: Final = ("config", "set_")
"""Options of every command that reads settings; the page says so itself."""


def markdown() -> str:
    """Write a section per group of the help, with a part for each command."""
    context = click.Context(llmhost, info_name=NAME)
    parts = []
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name in names:
            command = llmhost.get_command(context, name)
            assert command is not None
            parts += described(command, click.Context(command, context, name))
    return "\n".join([*parts, "## Exit status\n", _paragraphs(llmhost.epilog or "")])


def described(command: click.Command, context: click.Context) -> Iterator[str]:
    """Write a command, and those below it."""
    usage = [context.command_path, *command.collect_usage_pieces(context)]
    yield f"### {context.command_path}\n"
    if isinstance(command, click.Group):
        yield _paragraphs(command.help or "")
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from described(below, click.Context(below, context, name))
        return
    yield f"`{' '.join(usage)}`\n"
    yield _paragraphs(command.help or "")
    rows = [
        (code(record[0]), record[1])
        for option in command.params
        if isinstance(option, click.Option)
        and option.name not in EVERYWHERE
        and (record := option.get_help_record(context))
    ]
    if rows:
        yield table(("option", "meaning"), rows)
    if command.epilog:
        yield _paragraphs(command.epilog)


def _paragraphs(text: str) -> str:
    r"""Write a help text: `\\b` keeps the lines of the paragraph that it begins as they are."""
    parts = []
    for part in inspect.cleandoc(text).split("\n\n"):
        first, _, rest = part.partition("\n")
        verbatim = first.strip() in ("\b", r"\b")
        parts.append(f"```text\n{rest}\n```" if verbatim else " ".join(part.split()))
    return "\n\n".join(parts) + "\n"
