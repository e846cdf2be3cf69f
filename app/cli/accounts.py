"""`llmhost users …`, `keys …` and `secrets …`: accounts from the operator's side.

What changes accounts goes into the security log too: to wherever logging is set up to write, else
to standard error.
"""

import asyncio
import getpass
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

import click

from app.auth import security_log
from app.auth.auth import Auth, create_auth
from app.auth.keys import key_file, rotate_keys
from app.auth.security_log import Event
from app.cli.options import Chosen, with_settings
from app.cli.outcome import CommandFailed
from app.cli.output import note, print_rows, say, with_json
from app.settings import Settings
from app.storage.database import DatabaseFailure, database_of
from app.storage.models import ApiKey, Role, User

T = TypeVar("T")
ALL_KEYS: Final = "all"


@click.group()
def users() -> None:
    """Create, list and promote users, reset a password."""


@users.command()
@with_settings("data_dir")
@click.argument("username")
@click.option("--admin", is_flag=True, help="As an administrator.")
def create(chosen: Chosen, username: str, admin: bool) -> None:
    """Create a user; the password is asked for, or read from a pipe."""
    password = _new_password()
    role = Role.ADMIN if admin else Role.USER
    user = _with_auth(chosen.settings, lambda auth: auth.accounts.create(username, password, role))
    _note(Event.USER_CREATED, user, role=user.role)
    say(f"created user={user.username} role={user.role}")


@users.command("list")
@with_settings("data_dir")
@with_json
def list_users(chosen: Chosen, as_json: bool) -> None:
    """List users and their roles."""
    print_rows(
        [
            {"username": user.username, "role": user.role, "created": user.created_at}
            for user in _with_auth(chosen.settings, lambda auth: auth.accounts.all())
        ],
        {
            "user": lambda row: row["username"],
            "role": lambda row: row["role"],
            "created": lambda row: _day(row["created"]),
        },
        as_json=as_json,
    )


@users.command()
@with_settings("data_dir")
@click.argument("username")
@click.option("--role", type=click.Choice([role.value for role in Role]), default="admin")
def promote(chosen: Chosen, username: str, role: str) -> None:
    """Give a user a role."""
    user = _with_auth(chosen.settings, lambda auth: auth.accounts.set_role(username, Role(role)))
    _note(Event.ROLE_CHANGED, user, role=user.role)
    say(f"promoted user={user.username} role={user.role}")


@users.command("reset-password")
@with_settings("data_dir")
@click.argument("username")
def reset_password(chosen: Chosen, username: str) -> None:
    """Set a new password and sign the user out; API keys stay."""
    password = _new_password()
    user = _with_auth(
        chosen.settings, lambda auth: auth.accounts.reset_password(username, password)
    )
    _note(Event.PASSWORD_RESET, user)
    say(f"reset user={user.username}")


@click.group()
def keys() -> None:
    """Create, list, revoke API keys of a user."""


@keys.command("create")
@with_settings("data_dir")
@click.argument("username")
@click.argument("name")
@click.option("--expires-in-days", type=int, metavar="DAYS", help="Default: never.")
def create_key(chosen: Chosen, username: str, name: str, expires_in_days: int | None) -> None:
    """Make a key and print it, this once. NAME says what it is for."""

    async def make(auth: Auth) -> tuple[User, str, ApiKey]:
        user = await auth.accounts.named(username)
        made = await auth.api_keys.create(user.id, name, expires_in_days)
        return user, *made

    user, secret, key = _with_auth(chosen.settings, make)
    _note(Event.KEY_CREATED, user, key_id=key.id)
    # Standard output is the key alone, for `KEY=$(…)`.
    note(f"created user={user.username} id={key.id} expires={_day(key.expires_at)}")
    say(secret)


@keys.command("list")
@with_settings("data_dir")
@click.argument("username")
@with_json
def list_keys(chosen: Chosen, username: str, as_json: bool) -> None:
    """List a user's keys."""

    async def found(auth: Auth) -> Sequence[ApiKey]:
        user = await auth.accounts.named(username)
        return await auth.api_keys.of_user(user.id)

    print_rows(
        [
            {
                "id": key.id,
                "name": key.name,
                "ending": key.ending,
                "created": key.created_at,
                "used": key.last_used_at,
                "expires": key.expires_at,
            }
            for key in _with_auth(chosen.settings, found)
        ],
        {
            "id": lambda row: str(row["id"]),
            "name": lambda row: row["name"],
            "key": lambda row: f"…{row['ending']}",
            "created": lambda row: f"created={_day(row['created'])}",
            "used": lambda row: f"used={_day(row['used'])}",
            "expires": lambda row: f"expires={_day(row['expires'])}",
        },
        as_json=as_json,
    )


@keys.command("revoke")
@with_settings("data_dir")
@click.argument("username")
@click.argument("key_id", metavar="ID")
def revoke_key(chosen: Chosen, username: str, key_id: str) -> None:
    """End a key at once; ID as listed, or 'all'."""

    async def revoke(auth: Auth) -> tuple[User, list[str]]:
        user = await auth.accounts.named(username)
        ids = [key_id]
        if key_id == ALL_KEYS:
            ids = [str(key.id) for key in await auth.api_keys.of_user(user.id)]
        for one in ids:
            await auth.api_keys.revoke(user.id, one)
        return user, ids

    user, ids = _with_auth(chosen.settings, revoke)
    for one in ids:
        _note(Event.KEY_REVOKED, user, key_id=one)
        say(f"revoked id={one}")


@click.group()
def secrets() -> None:
    """What tokens are signed with."""


@secrets.command()
@with_settings("data_dir")
def rotate(chosen: Chosen) -> None:
    """Sign with a new secret, two minutes from now."""
    file = key_file(chosen.settings)
    if file is None:
        say("LLMHOST_JWT_SECRET is set: put the new secret before the old one, with a comma")
    else:
        try:
            count = rotate_keys(file)
        except OSError as error:
            raise _without_data(chosen.settings, error) from error
        _note(Event.SECRETS_ROTATED)
        say(f"rotated secrets={count}; servers sign with the new one in two minutes")


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d}"


def _with_auth(settings: Settings, work: Callable[[Auth], Awaitable[T]]) -> T:
    """Do one thing with the accounts of the settings' database.

    Raises:
        CommandFailed: the database can't be had.
    """

    async def run() -> T:
        database = database_of(settings)
        auth = create_auth(settings, database)
        try:
            await database.migrate()
            return await work(auth)
        finally:
            await auth.close()
            await database.close()

    try:
        return asyncio.run(run())
    except (OSError, *DatabaseFailure) as error:
        raise _without_data(settings, error) from error


def _without_data(settings: Settings, error: Exception) -> CommandFailed:
    what, advice = f"the data directory {str(settings.data_dir)!r}", "--data-dir"
    if settings.database_url:
        what, advice = "the database", "--set database_url=URL"
    why = str(getattr(error, "orig", None) or error).partition("\n")[0]
    return CommandFailed(f"{what} can't be used, {why}: name another with {advice}")


def _note(event: Event, user: User | None = None, **values: object) -> None:
    logger = security_log.logger
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[%(levelname)s] %(name)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    who = {} if user is None else {"user": user.username, "user_id": user.id}
    security_log.note(event, None, **who, **values, operator=f"uid {os.getuid()}")


def _new_password() -> str:
    """Ask on a terminal, else read a line; never an argument, which others could see."""
    if sys.stdin.isatty():
        return getpass.getpass("New password: ")
    return sys.stdin.readline().rstrip("\n")
