"""`llmhost bench …`: hands over to the `bench/` of a checkout, which is in no package."""

import subprocess
import sys
from pathlib import Path

import click

from app.cli.outcome import CommandFailed

CHECKOUT = Path(__file__).parents[2]


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Measure the engine, a running server, or this one beside others.

    Everything after `bench` is for `python -m bench`; `llmhost bench --help` lists its parts.
    """
    if not (CHECKOUT / "bench" / "__main__.py").is_file():
        raise CommandFailed(
            "measuring needs a checkout, where it writes its figures: clone the project, "
            "`make serve`, then run this command of its .venv/bin"
        )
    command = [sys.executable, "-m", "bench", *arguments]
    ended = subprocess.run(command, cwd=CHECKOUT, check=False)  # noqa: S603 # ours
    context.exit(ended.returncode)
