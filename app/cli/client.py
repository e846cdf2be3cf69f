"""A running server, as the commands that ask one see it."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
import httpx

from app.cli.outcome import CommandFailed, Exit
from app.cli.serve import browser_host
from app.setting_sources import CLIENTS
from app.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

_TIMEOUT = httpx.Timeout(5.0, read=None)
"""Connecting takes moments; an answer may take any time."""


def with_server(function: F) -> F:
    """Give a command `url` and `key`, from flags or the environment."""
    url, key = CLIENTS
    decorated = click.option(
        "--key",
        envvar=key,
        metavar="KEY",
        callback=_sendable,
        help=f"API key or access token; also {key}.",
    )(function)
    return click.option(
        "--url",
        envvar=url,
        metavar="URL",
        callback=_address,
        help=f"The server; also {url}. Default: the one that `llmhost serve` would be.",
    )(decorated)


def _address(_: click.Context, __: click.Parameter, url: str | None) -> str | None:
    if url is None:
        return None
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise click.BadParameter(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise click.BadParameter(f"{url!r} is no URL: it begins as in http://127.0.0.1:8000")
    return url


def _sendable(_: click.Context, __: click.Parameter, key: str | None) -> str | None:
    if key is not None and not (key.isascii() and key.isprintable()):
        raise click.BadParameter("keys are made of plain ASCII characters: copy it again")
    return key


def default_url(settings: Settings) -> str:
    """Where `llmhost serve` serves with these settings."""
    return f"http://{browser_host(settings.host)}:{settings.port}"


def make_client(url: str, key: str | None) -> httpx.Client:
    """Make a client of one server."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=_TIMEOUT)


def answers(url: str) -> bool:
    """Whether a server of this project answers there."""
    try:
        answer = httpx.get(f"{url.rstrip('/')}/health/live", timeout=2.0)
    except (httpx.TransportError, httpx.InvalidURL):
        return False
    return answer.status_code == 200 and answer.text.startswith('{"status"')


def get_json(client: httpx.Client, path: str) -> Any:
    """Ask for something.

    Raises:
        CommandFailed: no server answers, it refuses, or it is another one.
    """
    return json_of(checked(client, "GET", path))


def json_of(answer: httpx.Response) -> Any:
    """Read what a server answered.

    Raises:
        CommandFailed: it is no JSON, so the server is another one.
    """
    try:
        return answer.json()
    except ValueError as error:
        raise CommandFailed(
            f"what answers at {answer.url} is no server of this project: name one with --url"
        ) from error


def checked(client: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    """Ask for something.

    Raises:
        CommandFailed: no server answers, or it refuses.
    """
    try:
        answer = client.request(method, path, **options)
    except httpx.TransportError as error:
        raise unreachable(client, error) from error
    if answer.is_error:
        raise refusal(answer)
    return answer


def unreachable(client: httpx.Client | httpx.AsyncClient, error: Exception) -> CommandFailed:
    """Say that no server answers, and what to do."""
    where = str(client.base_url).rstrip("/")
    reason = str(error) or type(error).__name__
    return CommandFailed(
        f"no server answers at {where} ({reason}): start one with `llmhost serve`, or name another "
        "with --url",
        Exit.UNREACHABLE,
    )


def refusal(answer: httpx.Response) -> CommandFailed:
    """Say what a server refused, in its own words."""
    try:
        body = answer.json()
        said = body.get("detail") or body["error"]["message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return CommandFailed(
            f"what answers at {answer.url} says {answer.status_code} {answer.reason_phrase} and is "
            "no server of this project: name one with --url"
        )
    advice = ": name a key with --key" if answer.status_code in (401, 403) else ""
    return CommandFailed(f"the server answers {answer.status_code}, {said}{advice}")
