"""What `chat` and `run` share: how an answer is to be written, and what is said of it."""

import functools
import unicodedata
from collections.abc import Callable
from typing import Any, TypeVar

import click

from app.cli.answerer import Ended, Sampling

F = TypeVar("F", bound=Callable[..., Any])


def with_sampling(function: F) -> F:
    """Give a command `system` and `sampling`, from flags."""

    @functools.wraps(function)
    def run(
        *args: Any,
        temperature: float,
        top_p: float,
        max_tokens: int | None,
        seed: int | None,
        **kwargs: Any,
    ) -> Any:
        sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)
        return function(*args, sampling=sampling, **kwargs)

    decorated: Any = run
    default = Sampling()
    for option in (
        click.option("--seed", type=int, metavar="N", help="Draws the same tokens again."),
        click.option(
            "--max-tokens", type=click.IntRange(1), metavar="N", help="Default: all that fit."
        ),
        click.option(
            "--top-p",
            type=click.FloatRange(0, 1),
            default=default.top_p,
            show_default=True,
            help="Share of the likeliest tokens that are drawn from.",
        ),
        click.option(
            "--temperature",
            type=click.FloatRange(0, 2),
            default=default.temperature,
            show_default=True,
            help="0: always the likeliest token.",
        ),
        click.option("--system", metavar="TEXT", help="System prompt."),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return] # what Click's decorators made of F


def printable(text: str) -> str:
    """Take from a model's text what would steer the terminal."""
    return "".join(c for c in text if unicodedata.category(c) != "Cc" or c in "\n\t")


def said(ended: Ended) -> str:
    """Say what an answer took."""
    why = "" if ended.reason == "stop" else f", ended by {ended.reason}"
    return (
        f"{ended.tokens} tokens, {ended.tokens_per_s:.1f} per second, first after "
        f"{ended.first_s:.2f} s, prompt {ended.prompt_tokens}{why}"
    )
