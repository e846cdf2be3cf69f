"""`llmhost serve`: look whether a start can work, then run Granian as `granian app:app` would.

The worker says when it is ready (`app.process.worker`). Knows no route and no model's files.
"""

import os
import sys
import threading
import time
import webbrowser
from pathlib import Path
from typing import Final

import click
import httpx
import msgspec

from app.cli.checks import FAST, Check, check_start
from app.cli.options import Chosen, with_settings
from app.cli.outcome import CommandFailed, Exit
from app.cli.output import note
from app.process import logs
from app.settings import variable_of

APPLICATION: Final = "app:app"
LOGGING: Final = Path(logs.__file__).with_name("granian_logging.json")
_OPEN_PATIENCE_S: Final = 600.0


@click.command(
    epilog="Granian's own options follow after --, as in "
    "`llmhost serve -- --workers 2 --ssl-certificate cert.pem --ssl-keyfile key.pem`."
)
@with_settings(
    "host",
    "port",
    "model",
    "models_dir",
    "data_dir",
    "slots",
    "context_length",
    "execution_provider",
    "intra_op_threads",
)
@click.option(
    "--profile",
    type=click.Choice(["exact", "fast"]),
    help="Which export of the model: exact (8 bit), or fast (4 bit), which lies beside it.",
)
@click.option("--open", "open_", is_flag=True, help="Open the page in a browser when ready.")
@click.option("--check", is_flag=True, help="Only look whether a start could work.")
@click.argument("granian", nargs=-1, type=click.UNPROCESSED)
def serve(
    *,
    chosen: Chosen,
    profile: str | None,
    open_: bool,
    check: bool,
    granian: tuple[str, ...],
) -> None:
    """Serve models over HTTP, by default on http://127.0.0.1:8000.

    Looks first whether port, disk, model and memory allow it. Ctrl-C stops it when what runs has
    finished.
    """
    settings, environ = chosen.settings, dict(chosen.environ)
    if profile is not None:
        model = exported_as(settings.model, profile)
        settings = msgspec.structs.replace(settings, model=model)
        environ[variable_of("model")] = model
    found = check_start(settings)
    if check:
        for one in found:
            note(f"{one.name:<8}{one.text}")
    if problems := [one for one in found if one.state == "problem"]:
        raise CommandFailed(sentences(problems))
    if check:
        return
    os.environ.update(environ)  # the workers read the settings out of it
    if open_:
        host = browser_host(settings.host)
        threading.Thread(
            target=_open_when_ready, args=(f"http://{host}:{settings.port}",), daemon=True
        ).start()
    from granian.cli import cli as run_granian  # noqa: PLC0415 # refusals come without it

    # what follows counts more: an operator may choose another file
    arguments = ["--log-config", str(LOGGING), "--host", settings.host]
    arguments += ["--port", str(settings.port), *granian, APPLICATION]
    try:
        run_granian.main(arguments, "granian", standalone_mode=False)
    except SystemExit as ended:
        sys.exit(ended.code or Exit.DONE)


def exported_as(model: str, profile: str) -> str:
    """The name under which a profile of a model lies on disk, with the adapter that it names."""
    base, colon, adapter = model.partition(":")
    plain = base.removesuffix(FAST)
    return f"{plain}{FAST if profile == 'fast' else ''}{colon}{adapter}"


def sentences(problems: list[Check]) -> str:
    """Problems as lines, each a sentence that begins as one."""
    return "\n".join(f"{one.text[0].upper()}{one.text[1:]}." for one in problems)


def browser_host(host: str) -> str:
    """Where a client on this machine finds a server that listens on `host`."""
    known = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 # compared
    return known.get(host, f"[{host}]" if ":" in host else host)


def _open_when_ready(url: str) -> None:
    give_up_s = time.monotonic() + _OPEN_PATIENCE_S
    with httpx.Client(base_url=url) as client:  # one: making it takes more than asking
        while time.monotonic() < give_up_s:
            time.sleep(0.2)
            try:
                ready = client.get("/health/ready").status_code == 200
            except httpx.TransportError:
                continue
            if ready:
                webbrowser.open(url)
                return
