"""The settings on the command line: each command takes those that matter to it as flags.

Any other goes by `--set NAME=VALUE`. Knows no command.
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import click

from app.setting_sources import CONFIG, Given
from app.settings import Settings, effective_settings, variable_of

F = TypeVar("F", bound=Callable[..., Any])

FLAGS: Final = {
    "host": ("ADDRESS", "Address to listen on."),
    "port": ("PORT", "Port to listen on."),
    "model": ("MODEL", "Model to load at start: publisher/name; '' for none."),
    "models_dir": ("FOLDER", "Folder of the exported models."),
    "data_dir": ("FOLDER", "Folder for the database and the signing secret."),
    "slots": ("N", "Requests that generate at once; 0: as memory allows, 16 at most."),
    "context_length": ("TOKENS", "Prompt and answer together; 0: the model's own, 8,192 at most."),
    "execution_provider": ("auto|cpu|cuda", "Where the model runs."),
    "intra_op_threads": ("N", "Threads of a decoder step; 0: one per core."),
}
"""Settings that have flags of their own, what they take and what they mean."""


class Chosen(NamedTuple):
    """The settings of one command, and how a process that it starts gets the same."""

    settings: Settings
    origins: Mapping[str, Given]
    environ: Mapping[str, str]
    """The environment with the flags in it."""


def with_settings(*names: str) -> Callable[[F], F]:
    """Give a command the settings as `chosen`, and flags for some of them.

    Args:
        *names: settings of `FLAGS`.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def run(*args: Any, config: str | None, set_: tuple[str, ...], **kwargs: Any) -> Any:
            flags = [
                Given(name, value, "flag", f"--{_dashed(name)}")
                for name in names
                if (value := kwargs.pop(name)) is not None
            ]
            chosen = choose(config, [*flags, *(_assigned(text) for text in set_)])
            return function(*args, chosen=chosen, **kwargs)

        decorated: Any = run
        for name in reversed(names):
            metavar, text = FLAGS[name]
            decorated = click.option(f"--{_dashed(name)}", name, metavar=metavar, help=text)(
                decorated
            )
        decorated = click.option(
            "--set",
            "set_",
            metavar="NAME=VALUE",
            multiple=True,
            help="Any other setting, by its name in `llmhost settings`.",
        )(decorated)
        config = click.option(
            "--config", metavar="FILE", help="Settings file; default: ./llmhost.toml, if there."
        )
        return config(decorated)  # type: ignore[no-any-return] # what Click's decorators made of F

    return decorate


def choose(config: str | None, flags: list[Given]) -> Chosen:
    """Read the settings, a command's flags first.

    Raises:
        InvalidSetting: a setting is unknown or has a wrong value.
    """
    environ = dict(os.environ)
    if config is not None:
        environ[CONFIG] = config
    settings, origins = effective_settings(environ, flags)
    environ |= {variable_of(flag.name): str(flag.value) for flag in flags}
    return Chosen(settings, origins, environ)


def _assigned(text: str) -> Given:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set {text}: expected NAME=VALUE, as in --set slots=8")
    name = name.strip().replace("-", "_")
    return Given(name, value, "flag", f"--set {name}")


def _dashed(name: str) -> str:
    return name.replace("_", "-")
