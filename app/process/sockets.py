"""This process's sockets as the kernel sees them: who listens, who is connected and since when.

Granian opens, accepts and closes on threads of its own and shows the application none of it, so
the sockets are looked up among the process's file descriptors. Linux alone. Knows no HTTP.
"""

import contextlib
import ipaddress
import os
import socket
import stat
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psutil

Address = tuple[str, int]
"""Host and port, as both Granian and the kernel name them; `unix` and an inode's number for whoever
came through a Unix socket."""
Place = int | str
"""Where we listen: a port, or the path of a Unix socket."""

T = TypeVar("T")

_DESCRIPTORS: Final = "/proc/self/fd"
# struct tcp_info: eight bytes of flags, nine counters of four bytes each, then milliseconds since
# data was last sent, an acknowledgement was last sent, data was last received (linux/tcp.h).
_IDLE_TIMES: Final = struct.Struct("@44xI4xI")
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


@dataclass(frozen=True, slots=True)
class Connection:
    """A client that is connected."""

    peer: Address
    idle_s: float
    """Seconds in which no data went either way; 0 where the kernel doesn't tell."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket on which this process takes connections."""

    host: str
    """For a Unix socket its path."""
    port: int | None
    """None for a Unix socket."""

    @property
    def place(self) -> Place:
        """Where its connections come in."""
        return self.host if self.port is None else self.port

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.port is None:
            return True
        ip = ipaddress.ip_address(self.host)
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return (mapped or ip).is_loopback

    def __str__(self) -> str:
        if self.port is None:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listeners() -> list[Listener]:
    """Find the sockets on which this process takes connections."""

    def look(one: socket.socket) -> Listener | None:
        if not _listens(one):
            return None
        if one.family == socket.AF_UNIX:
            return Listener(os.fsdecode(one.getsockname()), None)
        return Listener(*one.getsockname()[:2])

    return _found(look)


def num_descriptors() -> int:
    """Count what this process has open, sockets and files alike: far cheaper than to look."""
    return len(os.listdir(_DESCRIPTORS))  # noqa: PTH208 # numbers, not paths


def connections(places: Collection[Place]) -> list[Connection]:
    """Find the clients that are connected to places of ours."""

    def look(one: socket.socket) -> Connection | None:
        peer = _peer(one, places)
        return None if peer is None else Connection(peer, _idle_s(one))

    return _found(look)


def cut(
    places: Collection[Place], doomed: Callable[[Address], bool], *, at_once: bool = True
) -> int:
    """Shut connections to places of ours down, and leave it to Granian to close them.

    Args:
        places: where we listen, or did.
        doomed: tells of a peer whether to cut its connection.
        at_once: drop what is still to be sent. Otherwise it keeps the connection in the kernel
            for as long as its peer reads nothing.

    Returns:
        How many there were.
    """

    def look(one: socket.socket) -> Address | None:
        peer = _peer(one, places)
        if peer is None or not doomed(peer):
            return None
        if at_once:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        one.shutdown(socket.SHUT_RDWR)
        return peer

    return len(_found(look))


def limit_unread(seconds: float) -> None:
    """Let the kernel end what is connected from now on, if it acknowledges nothing for a time.

    That is a peer that reads nothing, or is gone without a word. Accepted sockets inherit it.

    Source: TCP_USER_TIMEOUT in tcp(7).
    """

    def look(one: socket.socket) -> None:
        if one.family != socket.AF_UNIX and _listens(one):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))

    _found(look)


def bound_addresses() -> list[Address]:
    """Find addresses that are ours and on which we don't listen yet.

    Granian's main process binds one before it starts its workers, and they inherit it.
    """

    def look(one: socket.socket) -> Address | None:
        if one.family == socket.AF_UNIX or one.type != socket.SOCK_STREAM or _listens(one):
            return None
        host, port = one.getsockname()[:2]
        try:
            one.getpeername()
        except OSError:
            return (host, port) if port else None
        return None

    return _found(look)


def rival_of(address: Address) -> int | None:
    """Find another server that takes connections on an address.

    The kernel lets two servers of one user share a port, as Granian's workers do. A worker
    beside us, started by the same process, is no rival.

    Returns:
        Its process id, 0 if that can't be known; None: there is none.
    """
    for found in psutil.net_connections(kind="tcp"):
        if found.status == psutil.CONN_LISTEN and overlap(address, found.laddr):
            if found.pid is None:
                return 0
            if not _beside_us(found.pid):
                return int(found.pid)
    return None


def is_younger(pid: int) -> bool:
    """Whether another process started after this one, or has ended."""
    try:
        return (psutil.Process(pid).create_time(), pid) > (
            psutil.Process().create_time(),
            os.getpid(),
        )
    except psutil.Error:
        return True


def workers_on(address: Address) -> int:
    """Count the workers beside us that take connections on an address, ourselves not included."""
    return sum(
        found.status == psutil.CONN_LISTEN
        and found.pid is not None
        and found.pid != os.getpid()
        and overlap(address, found.laddr)
        and _beside_us(found.pid)
        for found in psutil.net_connections(kind="tcp")
    )


def overlap(one: Address, other: Any) -> bool:
    """Whether a connection to one address could reach a socket that is bound to the other."""
    hosts = [ipaddress.ip_address(host) for host in (one[0], other[0])]
    return one[1] == other[1] and (
        hosts[0] == hosts[1] or any(host.is_unspecified for host in hosts)
    )


def _beside_us(pid: int) -> bool:
    if pid == os.getpid():
        return True
    try:
        return psutil.Process(pid).ppid() == os.getppid()
    except psutil.Error:  # it has just ended
        return True


def _found(look: Callable[[socket.socket], T | None]) -> list[T]:
    """Look at each Internet or Unix socket, and keep what that gives.

    Granian may close any of them at any time: one that is gone, or can't do what is asked of it,
    is passed over.
    """
    found = []
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 # numbers, not paths
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            # a descriptor of our own: the number may be another socket's in a moment
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family in _FAMILIES and (value := look(one)) is not None:
                    found.append(value)
    return found


def _listens(one: socket.socket) -> bool:
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _peer(one: socket.socket, places: Collection[Place]) -> Address | None:
    if _listens(one):
        return None
    if one.family == socket.AF_UNIX:
        inode = os.fstat(one.fileno()).st_ino
        return ("unix", inode) if os.fsdecode(one.getsockname()) in places else None
    if one.getsockname()[1] not in places:
        return None
    host, port = one.getpeername()[:2]
    return host.partition("%")[0], port


def _idle_s(one: socket.socket) -> float:
    if one.family == socket.AF_UNIX:
        return 0.0
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _IDLE_TIMES.size)
    sent_ms, received_ms = _IDLE_TIMES.unpack(info)
    return float(min(sent_ms, received_ms) / 1000)
