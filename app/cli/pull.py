"""`llmhost pull SOURCE`: fetch a model and export it; the command line of `python -m export`."""

import importlib.util

import click

from app.cli.options import Chosen, with_settings
from app.cli.outcome import CommandFailed


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog="Other options, such as --profile fast or --dtype float16, are those of "
    "`python -m export --help`.",
)
@with_settings("models_dir")
@click.argument("source", required=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def pull(
    context: click.Context, chosen: Chosen, source: str | None, options: tuple[str, ...]
) -> None:
    """Fetch a model and export it for this server.

    SOURCE is a Hugging Face id, a folder, or a .gguf file; by default the small model that this
    server comes with.
    """
    missing = [name for name in ("torch", "optimum") if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandFailed(
            f"exporting a model needs {' and '.join(missing)}: "
            "pip install 'llmhost[cpu,export]' (or gpu,export-gpu), then pull again; "
            "serving needs neither"
        )
    from export.__main__ import main  # noqa: PLC0415 # torch takes seconds

    given = [*([] if source is None else [source]), *options]
    context.exit(main(["--models-dir", str(chosen.settings.models_dir), *given]))
