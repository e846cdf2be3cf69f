"""`python -m app users …` and `secrets …`: accounts from the operator's side."""

import argparse
import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from app.auth.accounts import Accounts
from app.auth.auth import create_auth
from app.auth.keys import rotate_keys
from app.settings import load_settings
from app.storage.database import Database, database_url
from app.storage.models import Role

T = TypeVar("T")


def add_to(groups: Any) -> None:
    """Add the groups to the command line; `groups` is what `add_subparsers` returned."""
    users = groups.add_parser("users", help="create, list, promote, reset password")
    commands = users.add_subparsers(metavar="COMMAND", required=True)
    create = commands.add_parser("create", help="create a user; the password is asked for")
    create.add_argument("username")
    create.add_argument("--admin", action="store_true", help="as an administrator")
    create.set_defaults(run=_create)
    commands.add_parser("list", help="list users and their roles").set_defaults(run=_list)
    promote = commands.add_parser("promote", help="give a user a role")
    promote.add_argument("username")
    promote.add_argument("--role", choices=[role.value for role in Role], default="admin")
    promote.set_defaults(run=_promote)
    reset = commands.add_parser("reset-password", help="set a new password and sign the user out")
    reset.add_argument("username")
    reset.set_defaults(run=_reset_password)

    secrets = groups.add_parser("secrets", help="what tokens are signed with")
    commands = secrets.add_subparsers(metavar="COMMAND", required=True)
    rotate = commands.add_parser("rotate", help="sign with a new secret from the next start on")
    rotate.set_defaults(run=_rotate)


def _create(arguments: argparse.Namespace) -> None:
    password = _new_password()
    role = Role.ADMIN if arguments.admin else Role.USER
    user = _with_accounts(lambda accounts: accounts.create(arguments.username, password, role))
    _say(f"created user={user.username} role={user.role}")


def _list(_: argparse.Namespace) -> None:
    for user in _with_accounts(Accounts.all):
        _say(f"{user.username}\t{user.role}\t{user.created_at:%Y-%m-%d}")


def _promote(arguments: argparse.Namespace) -> None:
    role = Role(arguments.role)
    user = _with_accounts(lambda accounts: accounts.set_role(arguments.username, role))
    _say(f"promoted user={user.username} role={user.role}")


def _reset_password(arguments: argparse.Namespace) -> None:
    password = _new_password()
    user = _with_accounts(lambda accounts: accounts.reset_password(arguments.username, password))
    _say(f"reset user={user.username}")


def _rotate(_: argparse.Namespace) -> None:
    settings = load_settings()
    if settings.jwt_secret:
        _say("LLMHOST_JWT_SECRET is set: put the new secret before the old one, with a comma")
    else:
        _say(f"rotated secrets={rotate_keys(settings.data_dir)}; restart to sign with the new one")


def _with_accounts(work: Callable[[Accounts], Awaitable[T]]) -> T:
    """Do one thing with the accounts of the settings' database."""
    settings = load_settings()

    async def run() -> T:
        database = Database(database_url(settings.database_url, settings.data_dir))
        auth = create_auth(settings, database)
        try:
            await database.migrate()
            return await work(auth.accounts)
        finally:
            auth.close()
            await database.close()

    return asyncio.run(run())


def _new_password() -> str:
    """Ask on a terminal, else read a line; never an argument, which others could see."""
    if sys.stdin.isatty():
        return getpass.getpass("New password: ")
    return sys.stdin.readline().rstrip("\n")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
