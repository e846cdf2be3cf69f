"""`llmhost chat`: a conversation in the terminal.

Ctrl-C stops an answer and not the program: what was written of it stays in the conversation.
"""

import asyncio
import os
import signal
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import click

from app.cli.answerer import Answerer, Ended, Sampling, Turn, answering
from app.cli.asking import printable, said, with_sampling
from app.cli.client import with_server
from app.cli.conversation import COMMANDS, Conversation, Said
from app.cli.options import Chosen, with_settings
from app.cli.outcome import CommandFailed, Exit
from app.errors import Error

FENCE: Final = '"""'


@click.command()
@with_settings("model", "models_dir", "execution_provider", "intra_op_threads")
@with_server
@with_sampling
@click.option("--local", is_flag=True, help="In this process, even where a server runs.")
@click.option("--no-history", is_flag=True, help="Don't keep what is typed for the next time.")
def chat(
    *,
    chosen: Chosen,
    url: str | None,
    key: str | None,
    system: str | None,
    sampling: Sampling,
    local: bool,
    no_history: bool,
) -> None:
    """Chat with a model in the terminal.

    With the server that --url names or that runs here; else the model is loaded in this process.
    /help lists the commands of the chat.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandFailed(
            "chat needs a terminal: for pipes there is `llmhost run MODEL`", Exit.USAGE
        )
    named = chosen.settings.model if "model" in chosen.origins else None

    async def converse() -> None:
        click.secho("…", dim=True, nl=False)
        async with answering(chosen.settings, named, url, key, local=local) as answerer:
            click.echo("\r", nl=False)
            click.secho(f"{answerer.model} {answerer.where}; /help says more", dim=True)
            await _Loop(answerer, Conversation(system, sampling), keep=not no_history).run()

    asyncio.run(converse())


class _Loop:
    def __init__(self, answerer: Answerer, conversation: Conversation, *, keep: bool) -> None:
        self._answerer = answerer
        self._conversation = conversation
        self._prompt = _prompt_session(_history_path() if keep else None)

    async def run(self) -> None:
        """Read, answer, read again."""
        while (text := await self._read()) is not None:
            if not text.strip():
                continue
            if text.startswith("/"):
                done = self._conversation.command(text.strip())
                if done.text:
                    click.secho(done.text, dim=True)
                await self._change_model(done)
                if done.then == "leave":
                    return
                if done.then == "read":
                    continue
            else:
                self._conversation.turns.append(Turn("user", text))
            await self._answer()

    async def _read(self) -> str | None:
        """Read a text, of several lines between fences; None: there is no more."""
        try:
            text: str = await self._prompt.prompt_async(">>> ")
            if not text.lstrip().startswith(FENCE):
                return text
            lines = [text.lstrip().removeprefix(FENCE)]
            while not lines[-1].rstrip().endswith(FENCE):
                lines.append(await self._prompt.prompt_async("... "))
        except KeyboardInterrupt:
            click.secho("Ctrl-D or /exit ends the chat", dim=True)
            return ""
        except EOFError:
            return None
        lines[-1] = lines[-1].rstrip().removesuffix(FENCE)
        return "\n".join(lines).strip("\n")

    async def _change_model(self, done: Said) -> None:
        if done.model is None:
            return
        try:
            if not done.model:
                names = await self._answerer.names()
                lines = (f"{'*' if n == self._answerer.model else ' '} {n}" for n in names)
                click.secho("\n".join(lines), dim=True)
                return
            await self._answerer.use(done.model)
        except (CommandFailed, Error) as error:
            click.secho(str(error), fg="red")
        else:
            click.secho(f"{self._answerer.model} {self._answerer.where}", dim=True)

    async def _answer(self) -> None:
        """Write an answer, until its end or Ctrl-C."""
        pieces: list[str] = []
        writing = asyncio.ensure_future(self._write(pieces))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, writing.cancel)
        try:
            ended = await writing
        except asyncio.CancelledError:
            if not writing.cancelled():  # the program is cancelled, not the answer
                raise
            click.secho("\n(stopped)", dim=True)
        except (CommandFailed, Error) as error:
            click.secho(f"{error}", fg="red")
            if not pieces:  # the question may be asked again
                self._conversation.turns.pop()
        else:
            click.echo()
            if self._conversation.stats:
                click.secho(said(ended), dim=True)
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        if pieces:
            self._conversation.turns.append(Turn("assistant", "".join(pieces)))

    async def _write(self, pieces: list[str]) -> Ended:
        asked = self._conversation.asked
        events: Any = self._answerer.answer(asked, self._conversation.sampling)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Ended):
                    return event
                pieces.append(event)
                sys.stdout.write(printable(event))
                sys.stdout.flush()
        raise CommandFailed("the answer broke off")


def _prompt_session(history: Path | None) -> Any:
    from prompt_toolkit import PromptSession  # noqa: PLC0415 # a refusal comes without it
    from prompt_toolkit.completion import WordCompleter  # noqa: PLC0415 # as above
    from prompt_toolkit.history import FileHistory, InMemoryHistory  # noqa: PLC0415 # as above
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent  # noqa: PLC0415 # as above

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return PromptSession(
        history=InMemoryHistory() if history is None else FileHistory(str(history)),
        completer=WordCompleter([f"/{name}" for name in COMMANDS], sentence=True),
        complete_while_typing=False,
        key_bindings=keys,
    )


def _history_path() -> Path:
    """Where what was typed is kept, for its owner alone."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(home) / "llmhost" / "chat_history"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    return path
