"""Which connections are cut, with sockets of this very process at both ends."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from app.process import connections as module
from app.process.connections import Connections
from app.process.sockets import connections, cut


class Place:
    """A listener, and its clients with the ends that were accepted."""

    def __init__(self, listener: socket.socket, opened: contextlib.ExitStack) -> None:
        self.listener = listener
        self.port: int = listener.getsockname()[1]
        self._opened = opened
        self._accepted: list[socket.socket] = []
        opened.callback(self.close_accepted)

    def join(self) -> socket.socket:
        client = self._opened.enter_context(socket.socket(self.listener.family))
        client.settimeout(30)
        client.connect(self.listener.getsockname())
        self._accepted.append(self.listener.accept()[0])
        return client

    def close_accepted(self) -> None:
        for accepted in self._accepted:
            accepted.close()


@pytest.fixture
def place() -> Iterator[Place]:
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as opened:
        yield Place(listener, opened)


def watching(
    place: Place,
    per_address: int = 0,
    idle_s: float = 0.0,
    group: Callable[[str], str | None] = lambda host: host,
) -> Connections:
    made = Connections(per_address=per_address, idle_s=idle_s, group=group)
    made.watch([place.port])
    made.close()  # these tests look themselves
    return made


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def test_the_newest_beyond_the_limit_are_cut_at_the_second_look(place: Place) -> None:
    watched = watching(place, per_address=2)
    clients = [place.join() for _ in range(2)]
    watched.look_over()
    clients += [place.join() for _ in range(3)]
    watched.look_over()
    assert all(map(is_open, clients)), "a short question is answered before it is counted"
    watched.look_over()
    assert [is_open(client) for client in clients] == [True, True, False, False, False]


def test_a_flood_is_looked_at_before_the_next_look_is_due(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 3600.0)
    watched = Connections(per_address=2, idle_s=0.0, group=lambda host: host)
    watched.watch([place.port])
    try:
        time.sleep(4 * module.GLANCE_EVERY_S)  # the first look
        clients = [place.join() for _ in range(2 + module.MANY)]
        give_up = time.monotonic() + 30
        while sum(map(is_open, clients)) > 2 and time.monotonic() < give_up:
            time.sleep(0.01)
    finally:
        watched.close()
    assert [is_open(client) for client in clients[:2]] == [True, True]
    assert sum(map(is_open, clients)) == 2


def test_addresses_are_counted_apart_and_some_not_at_all(place: Place) -> None:
    kept = watching(place, per_address=1, group=lambda _: None)
    clients = [place.join() for _ in range(3)]
    for _ in range(2):
        kept.look_over()
    assert all(map(is_open, clients))


def test_only_connections_to_the_place_are_looked_at(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as database:
        ours = socket.create_connection(database.getsockname())
        accepted, _ = database.accept()
        with ours, accepted:
            client = place.join()
            assert {found.peer for found in connections([place.port])} == {client.getsockname()}
            assert cut([place.port], lambda _: True) == 1
            assert is_open(ours)
            assert is_open(accepted)
            assert not is_open(client)


def test_idle_connections_are_cut_unless_a_request_is_under_way(place: Place) -> None:
    watched = watching(place, idle_s=0.05)
    idle, serving = place.join(), place.join()
    with watched.serving(serving.getsockname()), watched.serving(serving.getsockname()):
        give_up = time.monotonic() + 30
        while is_open(idle) and time.monotonic() < give_up:
            watched.look_over()
        assert not is_open(idle)
        assert is_open(serving)
    while is_open(serving) and time.monotonic() < give_up:
        watched.look_over()
    assert not is_open(serving)


async def test_the_end_comes_when_the_last_connection_is_closed(place: Place) -> None:
    watched = watching(place)
    await watched.end(30)  # there is none: this takes no time
    client = place.join()
    ending = asyncio.create_task(watched.end(30))
    await asyncio.sleep(0)
    assert not ending.done()
    place.close_accepted()
    async with asyncio.timeout(20):
        await ending
    assert not is_open(client), "closed, by who accepted it"


async def test_what_outlasts_the_patience_is_cut_and_what_it_was_to_get_is_dropped(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    watched = watching(place)
    client = place.join()
    ending = asyncio.create_task(watched.end(0))
    await asyncio.to_thread(client.recv, 1)
    place.close_accepted()  # as a server does when a connection was shut down
    async with asyncio.timeout(30):
        await ending
    assert [record.getMessage() for record in caplog.records] == ["connections_cut count=1"]
