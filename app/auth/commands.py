"""`python -m app users …`, `keys …` and `secrets …`: accounts from the operator's side.

What changes accounts goes into the security log too: to wherever logging is set up to write, else
to standard error.
"""

import argparse
import asyncio
import getpass
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from app.auth import security_log
from app.auth.auth import Auth, create_auth
from app.auth.keys import rotate_keys
from app.auth.security_log import Event
from app.settings import load_settings
from app.storage.database import Database, database_url
from app.storage.models import ApiKey, Role, User

T = TypeVar("T")
ALL_KEYS: Final = "all"


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
    reset = commands.add_parser(
        "reset-password", help="set a new password and sign the user out; API keys stay"
    )
    reset.add_argument("username")
    reset.set_defaults(run=_reset_password)

    keys = groups.add_parser("keys", help="create, list, revoke API keys of a user")
    commands = keys.add_subparsers(metavar="COMMAND", required=True)
    create = commands.add_parser("create", help="make a key and print it, this once")
    create.add_argument("username")
    create.add_argument("name", help="what it is for")
    create.add_argument("--expires-in-days", type=int, metavar="DAYS", help="default: never")
    create.set_defaults(run=_create_key)
    list_ = commands.add_parser("list", help="list a user's keys")
    list_.add_argument("username")
    list_.set_defaults(run=_list_keys)
    revoke = commands.add_parser("revoke", help="end a key at once")
    revoke.add_argument("username")
    revoke.add_argument("id", help=f"as listed, or {ALL_KEYS!r}")
    revoke.set_defaults(run=_revoke_key)

    secrets = groups.add_parser("secrets", help="what tokens are signed with")
    commands = secrets.add_subparsers(metavar="COMMAND", required=True)
    rotate = commands.add_parser("rotate", help="sign with a new secret from the next start on")
    rotate.set_defaults(run=_rotate)


def _create(arguments: argparse.Namespace) -> None:
    password = _new_password()
    role = Role.ADMIN if arguments.admin else Role.USER
    user = _with_auth(lambda auth: auth.accounts.create(arguments.username, password, role))
    _note(Event.USER_CREATED, user, role=user.role)
    _say(f"created user={user.username} role={user.role}")


def _list(_: argparse.Namespace) -> None:
    for user in _with_auth(lambda auth: auth.accounts.all()):
        _say(f"{user.username}\t{user.role}\t{user.created_at:%Y-%m-%d}")


def _promote(arguments: argparse.Namespace) -> None:
    role = Role(arguments.role)
    user = _with_auth(lambda auth: auth.accounts.set_role(arguments.username, role))
    _note(Event.ROLE_CHANGED, user, role=user.role)
    _say(f"promoted user={user.username} role={user.role}")


def _reset_password(arguments: argparse.Namespace) -> None:
    password = _new_password()
    user = _with_auth(lambda auth: auth.accounts.reset_password(arguments.username, password))
    _note(Event.PASSWORD_RESET, user)
    _say(f"reset user={user.username}")


def _create_key(arguments: argparse.Namespace) -> None:
    async def create(auth: Auth) -> tuple[User, str, ApiKey]:
        user = await auth.accounts.named(arguments.username)
        made = await auth.api_keys.create(user.id, arguments.name, arguments.expires_in_days)
        return user, *made

    user, secret, key = _with_auth(create)
    _note(Event.KEY_CREATED, user, key_id=key.id)
    expires = _day(key.expires_at)
    # Standard output is the key alone, for `KEY=$(…)`.
    sys.stderr.write(f"created user={user.username} id={key.id} expires={expires}\n")
    _say(secret)


def _list_keys(arguments: argparse.Namespace) -> None:
    async def keys(auth: Auth) -> Sequence[ApiKey]:
        user = await auth.accounts.named(arguments.username)
        return await auth.api_keys.of_user(user.id)

    for key in _with_auth(keys):
        days = f"created={_day(key.created_at)}\tused={_day(key.last_used_at)}"
        _say(f"{key.id}\t{key.name}\t…{key.ending}\t{days}\texpires={_day(key.expires_at)}")


def _revoke_key(arguments: argparse.Namespace) -> None:
    async def revoke(auth: Auth) -> tuple[User, list[str]]:
        user = await auth.accounts.named(arguments.username)
        ids = [arguments.id]
        if arguments.id == ALL_KEYS:
            ids = [str(key.id) for key in await auth.api_keys.of_user(user.id)]
        for key_id in ids:
            await auth.api_keys.revoke(user.id, key_id)
        return user, ids

    user, ids = _with_auth(revoke)
    for key_id in ids:
        _note(Event.KEY_REVOKED, user, key_id=key_id)
        _say(f"revoked id={key_id}")


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d}"


def _rotate(_: argparse.Namespace) -> None:
    settings = load_settings()
    if settings.jwt_secret:
        _say("LLMHOST_JWT_SECRET is set: put the new secret before the old one, with a comma")
    else:
        count = rotate_keys(settings.data_dir)
        _note(Event.SECRETS_ROTATED)
        _say(f"rotated secrets={count}; restart to sign with the new one")


def _with_auth(work: Callable[[Auth], Awaitable[T]]) -> T:
    """Do one thing with the accounts of the settings' database."""
    settings = load_settings()

    async def run() -> T:
        database = Database(database_url(settings.database_url, settings.data_dir))
        auth = create_auth(settings, database)
        try:
            await database.migrate()
            return await work(auth)
        finally:
            await auth.close()
            await database.close()

    return asyncio.run(run())


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


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
