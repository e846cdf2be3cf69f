"""Users and their keys, for administrators who have signed in."""

from typing import Final

from litestar import get, post
from litestar.handlers import HTTPRouteHandler

from app.auth import security_log
from app.auth.accounts import name_key
from app.auth.auth import Auth
from app.auth.guards import SignedInRequest, from_no_other_site
from app.auth.operators import administrator, operator
from app.auth.security_log import Event
from app.dialects.admin.schemas import (
    Done,
    KeyBody,
    NewKey,
    NewKeyBody,
    RoleBody,
    UserBody,
    UserRow,
    Users,
)
from app.dialects.kit.body import read_object, to_record
from app.dialects.kit.host import Provided
from app.errors import InvalidParameter
from app.storage.models import Role

_GUARDS: Final = [from_no_other_site, administrator]


@get("/admin/api/users", guards=[from_no_other_site, operator], include_in_schema=False)
async def list_users(auth: Provided[Auth]) -> Users:
    """List every user, with roles and keys."""
    users, keys = await auth.accounts.all(), await auth.api_keys.of_everybody()
    return Users([UserRow.of(user, keys.get(user.id, ())) for user in users])


@post("/admin/api/users/role", guards=_GUARDS, include_in_schema=False, status_code=200)
async def set_role(request: SignedInRequest, auth: Provided[Auth]) -> Done:
    """Make somebody an administrator, or a user again."""
    body = to_record(await read_object(request), RoleBody)
    _refuse_oneself(request, body.username)
    user = await auth.accounts.set_role(body.username, body.role)
    _note(Event.ROLE_CHANGED, request, auth, user.username, role=body.role.value)
    return Done(f"{user.username} is {'an administrator' if body.role is Role.ADMIN else 'a user'}")


@post("/admin/api/users/delete", guards=_GUARDS, include_in_schema=False, status_code=200)
async def delete_user(request: SignedInRequest, auth: Provided[Auth]) -> Done:
    """Delete somebody with logins, keys and chats."""
    body = to_record(await read_object(request), UserBody)
    _refuse_oneself(request, body.username)
    user = await auth.accounts.remove(body.username)
    _note(Event.ACCOUNT_DELETED, request, auth, user.username)
    return Done(f"{user.username} is deleted")


@post("/admin/api/keys/create", guards=_GUARDS, include_in_schema=False, status_code=200)
async def create_key(request: SignedInRequest, auth: Provided[Auth]) -> NewKey:
    """Make an API key that may do what a user may, and show it this once."""
    body = to_record(await read_object(request), NewKeyBody)
    user = await auth.accounts.named(body.username)
    secret, kept = await auth.api_keys.create(user.id, body.name, body.expires_in_days)
    _note(Event.KEY_CREATED, request, auth, user.username, key_id=kept.id)
    return NewKey(secret)


@post("/admin/api/keys/revoke", guards=_GUARDS, include_in_schema=False, status_code=200)
async def revoke_key(request: SignedInRequest, auth: Provided[Auth]) -> Done:
    """End a key; the next request with it is refused."""
    body = to_record(await read_object(request), KeyBody)
    user = await auth.accounts.named(body.username)
    await auth.api_keys.revoke(user.id, body.key_id)
    _note(Event.KEY_REVOKED, request, auth, user.username, key_id=body.key_id)
    return Done("The key is revoked")


def _refuse_oneself(request: SignedInRequest, username: str) -> None:
    """Leave at least one administrator: who does this stays one.

    Raises:
        InvalidParameter: it is the very user who asks.
    """
    if name_key(username) == name_key(request.user.username):
        raise InvalidParameter("username", username, "another user than yourself")


def _note(
    event: Event, request: SignedInRequest, auth: Auth, username: str, **values: object
) -> None:
    security_log.note(
        event,
        auth.access.visitor(request),
        user=username,
        by=request.user.username,
        **values,
    )


HANDLERS: Final[list[HTTPRouteHandler]] = [
    list_users,
    set_role,
    delete_user,
    create_key,
    revoke_key,
]
