"""`llmhost run MODEL "prompt"`: one answer, to standard output; pipes welcome."""

import asyncio
import sys

import click

from app.cli.answerer import Ended, Sampling, Turn, answering
from app.cli.asking import printable, said, with_sampling
from app.cli.client import with_server
from app.cli.options import Chosen, with_settings
from app.cli.output import note, print_json, with_json


@click.command()
@with_settings("models_dir", "execution_provider", "intra_op_threads")
@with_server
@with_sampling
@with_json
@click.option("--local", is_flag=True, help="In this process, even where a server runs.")
@click.option("--stats", is_flag=True, help="Say on standard error what it took.")
@click.argument("model")
@click.argument("prompt", required=False)
def run(
    *,
    chosen: Chosen,
    url: str | None,
    key: str | None,
    system: str | None,
    sampling: Sampling,
    as_json: bool,
    local: bool,
    stats: bool,
    model: str,
    prompt: str | None,
) -> None:
    r"""Ask a model once.

    \b
    llmhost run SmolLM2-135M-Instruct "What is gravity?"
    git diff | llmhost run SmolLM2-135M-Instruct "Say what this changes"

    Where no server runs, the model is loaded in this process.
    """
    try:
        piped = "" if sys.stdin.isatty() else sys.stdin.read()
        # where the locale is C, bytes that are no text are passed on as surrogates
        for part in (model, prompt or "", system or "", piped):
            part.encode()
    except UnicodeError as error:
        raise click.UsageError(
            "the prompt is no UTF-8 text: `iconv -f LATIN1 -t UTF-8`, or the like, makes it one"
        ) from error
    text = "\n\n".join(part for part in (prompt, piped.strip()) if part)
    if not text:
        raise click.UsageError("a prompt is missing: name one, or pipe one in")
    turns = [Turn("user", text)]
    if system is not None:
        turns.insert(0, Turn("system", system))

    async def ask() -> None:
        async with answering(chosen.settings, model, url, key, local=local) as answerer:
            pieces: list[str] = []
            async for event in answerer.answer(turns, sampling):
                if isinstance(event, str):
                    pieces.append(event)
                    if not as_json:
                        sys.stdout.write(printable(event) if sys.stdout.isatty() else event)
                        sys.stdout.flush()
                    continue
                _end(event, answerer.model, "".join(pieces))

    def _end(ended: Ended, name: str, answer: str) -> None:
        if as_json:
            print_json(
                {
                    "model": name,
                    "text": answer,
                    "finish_reason": ended.reason,
                    "prompt_tokens": ended.prompt_tokens,
                    "tokens": ended.tokens,
                    "first_token_s": round(ended.first_s, 4),
                    "seconds": round(ended.seconds, 4),
                }
            )
        elif not answer.endswith("\n"):
            sys.stdout.write("\n")
        if stats:
            note(said(ended))

    asyncio.run(ask())
