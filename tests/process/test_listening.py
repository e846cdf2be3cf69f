"""Where this process listens, and who else does."""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from app.process import listening
from app.process.listening import PortTaken, refuse_shared_ports, refuse_taken_port
from app.process.sockets import Listener, listeners

LISTEN = """
import socket
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind(("{host}", {port}))
server.listen()
print("listening", flush=True)
input()
"""


@contextlib.contextmanager
def listening_here(host: str) -> Iterator[Listener]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind((host, 0))
        server.listen()
        yield Listener(host, server.getsockname()[1])


@contextlib.contextmanager
def bound_here(host: str) -> Iterator[int]:
    """As Granian's main process leaves it to its workers."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, 0))
        yield bound.getsockname()[1]


@contextlib.contextmanager
def another_server(host: str, port: int) -> Iterator[int]:
    """A process that listens, started by this one."""
    command = [sys.executable, "-c", LISTEN.format(host=host, port=port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"listening\n"
        yield process.pid
        process.communicate(b"\n")


def test_listeners_are_found_and_written_as_in_a_url() -> None:
    with listening_here("127.0.0.1") as ours, listening_here("::1") as other:
        assert {ours, other} <= set(listeners())
        assert str(ours) == f"127.0.0.1:{ours.port}"
        assert str(other) == f"[::1]:{other.port}"
    assert ours not in listeners()


def test_a_unix_socket_is_a_listener_that_no_other_machine_reaches(tmp_path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert Listener(path, None) in listeners()
    assert str(Listener(path, None)) == f"unix:{path}"
    assert Listener(path, None).loopback


@pytest.mark.parametrize(("ours", "theirs"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_a_port_with_another_server_on_it_is_refused_with_its_process(ours, theirs) -> None:
    with bound_here(ours) as port:
        refuse_taken_port()
        with (
            another_server(theirs, port) as pid,
            pytest.raises(PortTaken, match=rf"^port {port} of {ours} is in use by process {pid}: "),
        ):
            refuse_taken_port()
        refuse_taken_port()


def test_another_port_or_address_is_nobodys_concern() -> None:
    with bound_here("127.0.0.1") as port:
        with another_server("127.0.0.2", port):
            refuse_taken_port()
        with another_server("127.0.0.1", 0):
            refuse_taken_port()


def test_a_worker_beside_us_is_no_rival(monkeypatch) -> None:
    # what it is beside us by is its parent: let that be ours
    with bound_here("127.0.0.1") as port, another_server("127.0.0.1", port):
        monkeypatch.setattr(os, "getppid", os.getpid)
        refuse_taken_port()


async def test_a_younger_server_has_to_go_and_an_older_one_stays(monkeypatch) -> None:
    monkeypatch.setattr(listening, "_YIELD_S", 60)
    with listening_here("127.0.0.1") as ours:
        with another_server("127.0.0.1", ours.port):  # younger than the test's process
            looking = asyncio.create_task(refuse_shared_ports([ours]))
            await asyncio.sleep(0)
            assert not looking.done()
        async with asyncio.timeout(30):
            await looking
        with another_server("127.0.0.1", ours.port) as pid:
            monkeypatch.setattr(listening.sockets, "is_younger", lambda _: False)
            with pytest.raises(PortTaken, match=str(pid)):
                await refuse_shared_ports([ours])


async def test_the_server_may_begin_to_listen_later() -> None:
    before = listeners()
    waiting = asyncio.create_task(listening.wait_for_listeners(before))
    await asyncio.sleep(0)
    assert not waiting.done()
    with listening_here("127.0.0.1") as ours:
        async with asyncio.timeout(30):
            assert await waiting == [ours]


async def test_without_a_socket_it_gives_up(monkeypatch) -> None:
    monkeypatch.setattr(listening, "_PATIENCE_S", 0.1)
    assert await listening.wait_for_listeners(listeners()) == []


@pytest.mark.parametrize(
    ("said", "scheme"), [(b"HTTP/1.1 200 OK\r\n", "http"), (b"\x15\x03", "https"), (b"", "https")]
)
async def test_a_url_is_that_of_a_listener_which_has_answered(said, scheme) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = await listening.url_of(Listener("0.0.0.0", port))
    assert url == f"{scheme}://0.0.0.0:{port}"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
    ],
)
def test_whoever_listens_to_others_is_warned_with_the_address(host, loopback, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        listening.warn_if_exposed([Listener(host, 8000)])
    assert (caplog.records == []) is loopback
    if not loopback:
        [record] = caplog.records
        assert str(Listener(host, 8000)) in record.getMessage()
        assert "LLMHOST_REQUIRE_AUTH" in record.getMessage()
