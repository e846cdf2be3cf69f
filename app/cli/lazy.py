"""A group of commands whose modules are imported when they are called, and not before.

So that `--version`, `--help` and completion don't wait for what they don't need. Knows no command.
"""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click


class Lazy(NamedTuple):
    """A command that is not imported yet."""

    place: str
    """`module:attribute`."""
    summary: str
    """Its line in the help of the group."""


class LazyGroup(click.Group):
    """Commands in sections, each imported when it is needed."""

    def __init__(
        self,
        *args: Any,
        sections: Mapping[str, Mapping[str, Lazy]],
        hidden: Mapping[str, str],
        **options: Any,
    ) -> None:
        """Make the group.

        Args:
            *args: Click's.
            sections: titles → names → commands, in the order of the help.
            hidden: names that the help leaves out → places.
            **options: Click's.
        """
        super().__init__(*args, **options)
        self.sections = sections
        self._places = {
            **hidden,
            **{name: lazy.place for section in sections.values() for name, lazy in section.items()},
        }

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 # Click's signature
        """Names of the commands that the help shows."""
        return [name for section in self.sections.values() for name in section]

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 # Click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import a command; None: there is none of that name."""
        place = self._places.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 # Click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the sections without importing a command."""
        for title, section in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, lazy.summary) for name, lazy in section.items()])
