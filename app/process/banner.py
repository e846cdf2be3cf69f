"""What a start shows on a terminal: that it goes on, and at its end what is served and to whom.

A log file gets lines instead. Knows no dialect's routes.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version

from app.contract.models import ModelState
from app.settings import Settings


def shown_while_starting(model: str) -> AbstractContextManager[None]:
    """Show on a terminal that a start goes on; log lines are written above it."""
    return _spinning(model) if sys.stderr.isatty() else contextlib.nullcontext()


@contextmanager
def _spinning(model: str) -> Iterator[None]:
    from rich.console import Console  # noqa: PLC0415 # only on a terminal
    from rich.progress import (  # noqa: PLC0415 # as above
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    # ONNX Runtime doesn't tell how far it has come: the time that it takes is all there is to show
    with Progress(
        *columns, console=Console(stderr=True, soft_wrap=True), transient=True
    ) as progress:
        progress.add_task(f"loading {model}" if model else "starting")
        yield


def banner(
    settings: Settings, urls: Sequence[str], loaded: Sequence[ModelState], *, exposed: bool
) -> str:
    """Say where the server is, what it serves, and what is open.

    Args:
        settings: the server's.
        urls: where it listens.
        loaded: the models in memory.
        exposed: whether other machines can reach it.
    """
    reach = "others can reach it" if exposed else "this machine alone"
    rows = [
        ("Address", f"{', '.join(urls)}  ({reach})"),
        ("Chat", f"{urls[0]}/" if urls else ""),
        ("OpenAI", f"{urls[0]}/v1" if urls else ""),
        ("All APIs", f"{urls[0]}/schema" if urls else ""),
        *(("Model", _model(state)) for state in loaded),
        *([] if loaded else [("Model", "none yet: the first request that names one loads it")]),
        ("Open", _open(settings)),
        ("Closed", _closed(settings)),
        ("Stop", "Ctrl-C, when what runs has finished"),
    ]
    lines = [f"  {name:<9} {text}" for name, text in rows if text]
    return "\n".join(["", f"  llmhost {version('llmhost')} is ready.", "", *lines, "", ""])


def _model(state: ModelState) -> str:
    facts = state.facts
    return (
        f"{state.model_id}, {facts.quantisation}, on {state.provider}, {state.slots} slots of "
        f"{state.capacity} tokens"
    )


def _open(settings: Settings) -> str:
    everything = "generation and models, to whoever reaches it, without a token"
    registration = "registration" if settings.registration == "open" else ""
    parts = ["" if settings.require_auth else everything, registration]
    return "; ".join(part for part in parts if part) or "nothing but /health"


def _closed(settings: Settings) -> str:
    accounts = "accounts and chats: a token each"
    if settings.require_auth:
        return f"generation: a token; models: an administrator's; {accounts}"
    return f"{accounts}; LLMHOST_REQUIRE_AUTH=true closes the rest"
