"""From which address a request comes, behind proxies or not."""

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from app.settings import InvalidSetting

Network = IPv4Network | IPv6Network

MAX_HOPS: Final = 32
"""Entries of `X-Forwarded-For` that are read, counted from the right."""
# `[fe80::1%eth0]:65535` and the longest IPv6 address stay below it.
_HOP_CHARACTERS: Final = 64


def parse_networks(setting: str) -> tuple[Network, ...]:
    """Read `LLMHOST_TRUSTED_PROXIES`.

    Raises:
        InvalidSetting: an entry is neither an address nor a network.
    """
    try:
        entries = [entry.strip() for entry in setting.split(",") if entry.strip()]
        return tuple(ip_network(entry) for entry in entries)
    except ValueError as error:
        raise InvalidSetting(f"LLMHOST_TRUSTED_PROXIES: {error}") from error


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Iterable[Network]) -> str:
    """Find the nearest address that is no trusted proxy, in the form in which limits count it.

    Args:
        peer: who is at the other end of the connection.
        forwarded_for: values of `X-Forwarded-For`, in order. Each proxy appends whom it saw, so
            they are believed from the right, for as long as the one who says so is trusted.
        trusted: the proxies' networks.

    Returns:
        An IPv4 address; the /64 network of an IPv6 address; at most 64 characters of what is
        neither, such as the path of a Unix socket.
    """
    trusted = tuple(trusted)
    address = _parsed(peer)
    hops = _from_the_right(forwarded_for)
    while _is_in(address, trusted) and (hop := next(hops, None)) is not None:
        address = _parsed(hop)
    if isinstance(address, IPv6Address):
        # One customer gets at least a /64: counting its 2^64 addresses singly would be no limit.
        return str(ip_network((address, 64), strict=False))
    return str(address)


def is_loopback(host: str) -> bool:
    """Whether an address, in any of its forms, is the machine's own."""
    address = _parsed(host)
    # the path of a Unix socket is none: what is behind it is a proxy
    return not isinstance(address, str) and address.is_loopback


def is_among(host: str, networks: Iterable[Network]) -> bool:
    """Whether an address, in any of its forms, is in one of some networks."""
    return _is_in(_parsed(host), networks)


def _from_the_right(values: Sequence[str]) -> Iterator[str]:
    left = MAX_HOPS
    for value in reversed(values):
        # rsplit stops at its limit: a header may hold as many commas as the server lets pass
        hops = value.rsplit(",", left)[-left:]
        left -= len(hops)
        yield from reversed(hops)
        if not left:
            return


def _parsed(hop: str) -> IPv4Address | IPv6Address | str:
    """Read an address in any of the forms in which proxies write it.

    With a port, in brackets, with the zone of a link-local address, or an IPv4 address mapped
    into IPv6 by a socket that listens for both.
    """
    text = hop.strip()[:_HOP_CHARACTERS]
    bare = text.strip('"')
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_in(address: IPv4Address | IPv6Address | str, networks: Iterable[Network]) -> bool:
    return not isinstance(address, str) and any(address in network for network in networks)
