"""Whose the operator's page is: guards for administrators, and for whoever sits at the machine.

An administrator comes with the access token of a login: an API key lies in some program's
configuration. On an open server nobody needs a token who asks from the machine itself. What changes
accounts takes an administrator in any case: their chats are protected on an open server too.
"""

from typing import Final

from litestar.handlers import BaseRouteHandler

from app.auth.guards import Access, Connection, access_of, noted
from app.auth.logins import Principal
from app.errors import Forbidden, NotAuthenticated
from app.storage.models import Role

_EXPECTED: Final = "expected the access token of an administrator"


async def operator(connection: Connection, _: BaseRouteHandler) -> None:
    """Let administrators pass; on an open server also who asks from the machine itself.

    Raises:
        NotAuthenticated: there is no token that holds.
        Forbidden: there is one, and it is no administrator's, or an API key.
    """
    access = access_of(connection)
    with noted(connection):
        try:
            principal = await access.principal(connection)
        except NotAuthenticated as error:
            connection.scope["user"] = None
            if may_do_without(access, connection):
                return
            raise NotAuthenticated(f"{error.message}; {_wanted(access)}") from error
        connection.scope["user"] = principal
        if not may_do_without(access, connection):
            _check(principal)


async def administrator(connection: Connection, _: BaseRouteHandler) -> None:
    """Let administrators pass who have signed in, and nobody else on any server.

    Raises:
        NotAuthenticated: there is no token that holds.
        Forbidden: there is one, and it is no administrator's, or an API key.
    """
    access = access_of(connection)
    with noted(connection):
        principal = connection.scope["user"] = await access.principal(connection)
        _check(principal)


def may_do_without(access: Access, connection: Connection) -> bool:
    """Whether a request needs no token: it comes to an open server from the machine itself."""
    return not access.require_auth and access.is_local(connection)


def is_administrator(principal: Principal | None) -> bool:
    """Whether somebody may change accounts."""
    return principal is not None and principal.role is Role.ADMIN and principal.login_id is not None


def _check(principal: Principal) -> None:
    if principal.login_id is None:
        raise Forbidden(f"an API key may not do this, {_EXPECTED}")
    if principal.role is not Role.ADMIN:
        raise Forbidden(f"user {principal.username!r} is no administrator")


def _wanted(access: Access) -> str:
    local = "" if access.require_auth else ", or a request from the server's own machine"
    return _EXPECTED + local
