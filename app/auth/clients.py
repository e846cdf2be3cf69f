"""From which address a request comes, behind proxies or not."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from app.settings import InvalidSetting

Network = IPv4Network | IPv6Network


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


def client_address(peer: str, forwarded_for: Iterable[str], trusted: Iterable[Network]) -> str:
    """The nearest address that is no trusted proxy, as limits count it.

    Args:
        peer: who is at the other end of the connection.
        forwarded_for: values of `X-Forwarded-For`, in order. Each proxy appends whom it saw, so
            they are believed from the right, for as long as the one who says so is trusted.
        trusted: the proxies' networks.
    """
    trusted = tuple(trusted)
    address = peer
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    while hops and _is_in(address, trusted):
        address = hops.pop()
    return _counted(address)


def _is_in(address: str, networks: Iterable[Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def _counted(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address  # a Unix socket, or a proxy that hides its clients
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        # One customer gets at least a /64: counting its 2^64 addresses singly would be no limit.
        return str(ip_network((parsed, 64), strict=False))
    return str(parsed)
