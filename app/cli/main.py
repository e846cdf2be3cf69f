"""`llmhost …`, and the same as `python -m app …`: the commands, and how a command ends.

What a command does is in the module of its name; this imports none before it is called.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from app.cli.lazy import Lazy, LazyGroup
from app.cli.outcome import CommandFailed, Exit

NAME: Final = "llmhost"
SECTIONS: Final = {
    "Serve and ask": {
        "serve": Lazy("app.cli.serve:serve", "Serve models over HTTP."),
        "chat": Lazy("app.cli.chat:chat", "Chat with a model in the terminal."),
        "run": Lazy("app.cli.run:run", "Ask a model once; pipes welcome."),
    },
    "Models": {
        "pull": Lazy("app.cli.pull:pull", "Fetch a model and export it for this server."),
        "list": Lazy("app.cli.models:list_", "List the models on disk."),
        "show": Lazy("app.cli.models:show", "Show a model's figures."),
        "rm": Lazy("app.cli.models:remove", "Remove a model from disk."),
        "ps": Lazy("app.cli.ps:ps", "Show what a running server has in memory."),
    },
    "Operate": {
        "users": Lazy("app.cli.accounts:users", "Create, list, promote users; reset a password."),
        "keys": Lazy("app.cli.accounts:keys", "Create, list, revoke API keys of a user."),
        "secrets": Lazy("app.cli.accounts:secrets", "Rotate what tokens are signed with."),
        "settings": Lazy("app.cli.settings:settings", "Show the settings and where they stand."),
        "doctor": Lazy("app.cli.doctor:doctor", "Check this machine, the settings, the models."),
        "bench": Lazy("app.cli.bench:bench", "Measure; in a checkout only."),
        "completion": Lazy("app.cli.completion:completion", "Print a shell's completion script."),
    },
}
HIDDEN: Final = {"models": "app.cli.models:models"}
"""The group in which `list` and `show` were before."""


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415 # only here

        click.echo(f"{NAME} {version(NAME)}")
        context.exit()


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    hidden=HIDDEN,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
    epilog=f"Exit status: {Exit.DONE} done, {Exit.FAILED} failed with the reason on the last line, "
    f"{Exit.USAGE} a wrong command line or setting, {Exit.UNREACHABLE} no server answers, "
    f"{Exit.INTERRUPTED} Ctrl-C. Settings: flag, else environment (LLMHOST_…), else llmhost.toml, "
    "else default.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
def llmhost() -> None:
    """Serve language models on ONNX Runtime, and talk to them."""


def main(arguments: Sequence[str] | None = None, program: str = NAME) -> int:
    """Run one command; returns the exit status."""
    given = None if arguments is None else list(arguments)
    try:
        ended = llmhost.main(given, program, standalone_mode=False)
    except Exception as error:  # noqa: BLE001 # a bug is raised again
        return _report(error)
    # a command that ends its context early (`--help`, `--version`) is returned as its status
    return ended if isinstance(ended, int) else Exit.DONE


def _report(error: Exception) -> Exit:
    """Say why a command ended before its end; a bug of ours is raised again."""
    if isinstance(error, click.Abort):
        sys.stderr.write("\n")
        return Exit.INTERRUPTED
    if isinstance(error, click.ClickException):
        error.show()
        return Exit.USAGE
    if isinstance(error, CommandFailed):
        sys.stderr.write(f"{error}\n")
        return error.status
    if isinstance(error, BrokenPipeError):  # whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    from app.errors import Error  # noqa: PLC0415 # --version has no time for it
    from app.settings import InvalidSetting  # noqa: PLC0415 # as above

    if not isinstance(error, Error | InvalidSetting):
        raise error
    sys.stderr.write(f"{error}\n")
    return Exit.USAGE if isinstance(error, InvalidSetting) else Exit.FAILED


def run() -> None:
    """The installed command."""
    sys.exit(main())
