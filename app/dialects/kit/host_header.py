"""Turn away requests that a browser was led to send here by a name that is not ours.

A page of any origin may have its own name resolved to this machine's address (DNS rebinding): to
the browser both are then one site, and on an open server the page may do whatever its visitor
could. Only the Host header tells.
"""

import re
from ipaddress import ip_address
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from app.errors import Forbidden
from app.excerpts import shown
from app.settings import InvalidSetting, Settings

ANY_HOST: Final = {"any_host": True}
"""A route's `opt`: it may be called by any name, as probes do, for it tells nothing."""
_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_PORT: Final = re.compile(r":\d*$")


def from_known_host(settings: Settings) -> Guard:
    """Make a guard that lets requests pass whose host can't be somebody else's name.

    These are addresses, `localhost` and the names of the setting. HTTP/1.0 clients send none, and
    no browser is one. A closed server lets all pass: a page has no token to send.

    Raises:
        InvalidSetting: an entry of the setting is no name.
    """
    names = parse_names(settings.allowed_hosts)
    every_name = settings.require_auth or "*" in names

    def guard(connection: ASGIConnection[Any, Any, Any, Any], route: BaseRouteHandler) -> None:
        host = connection.headers.get("host", "")
        anything = every_name or not host or "any_host" in route.opt
        if not (anything or _is_known(host, names)):
            raise Forbidden(
                f"Host is {shown(host)}, expected an address, localhost or a name of "
                "LLMHOST_ALLOWED_HOSTS"
            )

    return guard


def parse_names(setting: str) -> frozenset[str]:
    """Read `LLMHOST_ALLOWED_HOSTS`.

    Raises:
        InvalidSetting: an entry is no name.
    """
    names = {entry.strip().lower() for entry in setting.split(",") if entry.strip()}
    for name in names:
        if name != "*" and not _NAME.fullmatch(name):
            raise InvalidSetting(
                f"LLMHOST_ALLOWED_HOSTS: {name!r} is no host name; expected names without a port, "
                "separated by commas, or *"
            )
    return frozenset(names)


def _is_known(host: str, names: frozenset[str]) -> bool:
    name = _PORT.sub("", host).rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
