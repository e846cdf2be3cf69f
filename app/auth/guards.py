"""The doors: who asks, whether they may, and how often. Litestar guards over one `Access`.

Guards run before anything of a body is read. They raise facts; a dialect's table makes statuses
of them. `Access` lies in the application's state as `access`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast
from uuid import uuid4

from litestar.connection import ASGIConnection, Request
from litestar.handlers import BaseRouteHandler
from litestar.openapi.spec import OAuthFlow, OAuthFlows, Reference, SecurityScheme
from litestar.types import Message, Scope

from app.auth import security_log
from app.auth.api_keys import ApiKeys
from app.auth.clients import Network, client_address, is_among, is_loopback
from app.auth.limits import RateLimit, RateStatus
from app.auth.logins import Logins, Principal
from app.auth.security_log import Event, Visitor
from app.errors import Error, Forbidden, NotAuthenticated, RateLimited, StorageAway
from app.storage.models import Role

Connection = ASGIConnection[Any, Any, Any, Any]
SignedInRequest = Request[Principal, Any, Any]
"""A request behind `signed_in`: its `user` is somebody."""

SECURITY_SCHEMES: dict[str, SecurityScheme | Reference] = {
    "bearer": SecurityScheme(
        type="oauth2",
        description="An access token of `POST /login`, sent as `Authorization: Bearer <token>`.",
        flows=OAuthFlows(
            password=OAuthFlow(token_url="/login", refresh_url="/refresh", scopes={})  # noqa: S106 # an address
        ),
    ),
    "api_key": SecurityScheme(
        type="http",
        scheme="bearer",
        description="An API key of `POST /me/keys`, sent as `Authorization: Bearer sk-…`.",
    ),
}
IN_BATCH: Final = "in_batch"
"""In the state of a request's scope: the server itself asks it, for a user's batch."""
SECURITY: Final = [{"bearer": list[str]()}, {"api_key": list[str]()}]
"""For the OpenAPI document: what a route behind `signed_in` takes."""
LOGIN_SECURITY: Final = SECURITY[:1]
"""For the OpenAPI document: what a route behind `not_by_key` takes."""
MAX_AUTHORIZATION_CHARACTERS: Final = 2048
"""Limit of the whole header; the longest token that is read has 1,024 characters."""
# What an access token, three parts of base64 with points between, never begins with.
_KEY_BEGINNING: Final = "sk-"
_EVENTS: Final[dict[type[Error], Event]] = {
    NotAuthenticated: Event.ACCESS_REFUSED,
    Forbidden: Event.FORBIDDEN,
    RateLimited: Event.RATE_LIMITED,
}
# What a proxy adds: whoever is behind one is not at this machine, wherever the proxy is.
_FORWARDED: Final = (
    *("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"),
)
# Ours or a proxy's; longer or stranger ones don't come back, nor reach a log.
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")


class Access:
    """Who may ask, as the settings say."""

    def __init__(
        self,
        logins: Logins,
        api_keys: ApiKeys,
        rate_limit: RateLimit,
        *,
        require_auth: bool,
        trusted_proxies: tuple[Network, ...],
    ) -> None:
        self.logins = logins
        self.api_keys = api_keys
        self.rate_limit = rate_limit
        self.require_auth = require_auth
        self._trusted_proxies = trusted_proxies

    async def principal(self, connection: Connection) -> Principal:
        """Tell who asks.

        Raises:
            NotAuthenticated: nobody that we know.
        """
        known: Principal | None = connection.scope.get("user")
        if known is not None:
            return known
        header = connection.headers.get("authorization", "")
        if len(header) > MAX_AUTHORIZATION_CHARACTERS:
            raise NotAuthenticated(
                f"the Authorization header has {len(header)} characters, "
                f"expected at most {MAX_AUTHORIZATION_CHARACTERS}"
            )
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise NotAuthenticated("not authenticated, expected Authorization: Bearer <token>")
        token = token.strip()
        if token.startswith(_KEY_BEGINNING):
            return await self.api_keys.principal(token, self.address(connection))
        return await self.logins.principal(token)

    def visitor(self, connection: Connection) -> Visitor:
        """Tell where a request comes from, for limits and the security log."""
        return Visitor(address=self.address(connection), request_id=request_id_of(connection.scope))

    def is_local(self, connection: Connection) -> bool:
        """Whether a request comes from this machine, and through no proxy that says it is one.

        Judged by the other end of the connection. No header makes a request local; one that a
        proxy adds makes it foreign, and so does a trusted proxy's address.
        """
        peer = connection.client.host if connection.client else ""
        return (
            is_loopback(peer)
            and not is_among(peer, self._trusted_proxies)
            and not any(name in connection.headers for name in _FORWARDED)
        )

    def address(self, connection: Connection) -> str:
        """Tell the address that limits count."""
        peer = connection.client.host if connection.client else "unknown"
        forwarded_for = connection.headers.getall("x-forwarded-for", [])
        return client_address(peer, forwarded_for, self._trusted_proxies)


def request_id_of(scope: Scope) -> str:
    """Tell the id of a request: the client's, if it is 1 to 128 printable characters, or ours."""
    state: dict[str, Any] = scope["state"]
    if "request_id" not in state:
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        state["request_id"] = given if _REQUEST_ID.fullmatch(given) else f"req_{uuid4().hex}"
    request_id: str = state["request_id"]
    return request_id


async def signed_in(connection: Connection, _: BaseRouteHandler | None = None) -> None:
    """Let users pass, with an access token or an API key.

    Raises:
        NotAuthenticated: no token, or none that holds.
    """
    with noted(connection):
        connection.scope["user"] = await access_of(connection).principal(connection)


async def not_by_key(connection: Connection, _: BaseRouteHandler) -> None:
    """Turn API keys away from the account itself. Comes after `signed_in`.

    Whoever finds a key can use the service until it is revoked, but can't make that last.

    Raises:
        Forbidden: who asks sent an API key.
    """
    principal: Principal = connection.scope["user"]
    with noted(connection):
        if principal.login_id is None:
            raise Forbidden("an API key may not do this, expected the access token of a login")


async def signed_in_if_required(connection: Connection, _: BaseRouteHandler) -> None:
    """Let users pass, and everybody else too where the server is open.

    Raises:
        NotAuthenticated: the server is closed, and there is no token that holds.
    """
    access = access_of(connection)
    with noted(connection):
        try:
            connection.scope["user"] = await access.principal(connection)
        except NotAuthenticated:
            # On an open server a bad token says nothing: many clients can't do without one.
            if access.require_auth:
                raise
            connection.scope["user"] = None


async def admin_if_required(connection: Connection, _: BaseRouteHandler) -> None:
    """Let administrators pass, and everybody else too where the server is open.

    Raises:
        NotAuthenticated: the server is closed, and there is no token that holds.
        Forbidden: the server is closed, and the user is no administrator.
    """
    access = access_of(connection)
    if not access.require_auth:
        return
    with noted(connection):
        principal = connection.scope["user"] = await access.principal(connection)
        if principal.role is not Role.ADMIN:
            raise Forbidden(f"user {principal.username!r} is no administrator")


async def admin_or_loopback(connection: Connection, route: BaseRouteHandler) -> None:
    """Let administrators pass, and where the server is open whoever is on the machine itself.

    Raises:
        NotAuthenticated: the server is closed, and there is no token that holds.
        Forbidden: the user is no administrator, or comes from another machine.
    """
    access = access_of(connection)
    if access.require_auth:
        await admin_if_required(connection, route)
        return
    with noted(connection):
        if not access.is_local(connection):
            address = access.address(connection)
            raise Forbidden(
                f"an open server allows this from the machine itself and through no proxy, "
                f"it comes from {address}"
            )


async def from_no_other_site(connection: Connection, _: BaseRouteHandler) -> None:
    """Turn away what a browser sends for a page that is not this server's own.

    A page may send a request without a body anywhere without asking. Browsers say in headers that
    no page can set where it comes from: in Sec-Fetch-Site, or in Origin alone where they don't
    trust the connection. Other clients send neither.

    Raises:
        Forbidden: it comes from another origin; another port or a sibling domain is one too.
    """
    with noted(connection):
        site = connection.headers.get("sec-fetch-site")
        origin = connection.headers.get("origin")
        if site is not None:
            own = site in ("same-origin", "none")  # none: its user asked, and no page
        else:
            own = origin is None or origin.partition("://")[2] == connection.headers.get("host")
        if not own:
            raise Forbidden("a page of another site may not do this")


async def within_rate_limit(connection: Connection, _: BaseRouteHandler) -> None:
    """Count this request for its user, or else for its address. Comes after the guards above.

    Raises:
        RateLimited: it is one too many.
    """
    access = access_of(connection)
    principal: Principal | None = connection.scope.get("user")
    client = f"user {principal.user_id}" if principal else f"address {access.address(connection)}"
    connection.state["rate_limited_client"] = client
    with noted(connection):
        await access.rate_limit.count(client)


async def within_chosen_rate_limit(connection: Connection, handler: BaseRouteHandler) -> None:
    """Count this request where the operator chose a limit: for APIs that document none.

    A lone user with an agent on this machine would otherwise meet another API's limit. Batches have
    a limit of their own: how many of their lines run at once.

    Raises:
        RateLimited: it is one too many.
    """
    if access_of(connection).rate_limit.everywhere and IN_BATCH not in connection.scope["state"]:
        await within_rate_limit(connection, handler)


async def add_rate_headers(message: Message, scope: Scope) -> None:
    """Put `X-RateLimit-*` on every answer behind `within_rate_limit`, refusals too.

    For the application's `before_send`: only there are errors and streams seen as well.
    """
    client = scope["state"].get("rate_limited_client")
    if message["type"] != "http.response.start" or client is None:
        return
    access: Access = scope["litestar_app"].state["access"]
    try:
        status: RateStatus | None = await access.rate_limit.status(client)
    except StorageAway:  # the answer that this refused goes out without
        return
    if status is None:
        return
    message["headers"] = [
        *message["headers"],
        (b"x-ratelimit-limit", b"%d" % status.limit),
        (b"x-ratelimit-remaining", b"%d" % status.remaining),
        (b"x-ratelimit-reset", b"%d" % status.reset),
    ]


@contextmanager
def noted(connection: Connection) -> Iterator[None]:
    """Write a refusal into the security log, whatever guard it is of."""
    try:
        yield
    except (NotAuthenticated, Forbidden, RateLimited) as error:
        principal: Principal | None = connection.scope.get("user")
        security_log.note(
            _EVENTS[type(error)],
            access_of(connection).visitor(connection),
            user=principal and principal.username,
            user_id=principal and principal.user_id,
            path=connection.scope["path"],
            reason=error.message,
        )
        raise


def access_of(connection: Connection) -> Access:
    """The one that lies in the application's state."""
    return cast("Access", connection.app.state["access"])
