"""Connections that would be held for ever: none is, and none keeps others or the end waiting."""

import contextlib
import itertools
import select
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e.server import (
    PATIENCE_S,
    Server,
    free_port,
    is_closed,
    read_all,
    running_server,
    wait_for,
)

LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
BIG = b"GET /schema/files/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
UNENDED = POST + b"Content-Length: 50\r\n\r\n{"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
INTERFACES = pytest.mark.parametrize("interface", [None, "asgi"])


NUMBERS = itertools.count()


def peers_of(server: Server) -> set[tuple[str, int]]:
    return {
        tuple(found.raddr)
        for pid in server.worker_pids()
        for found in psutil.Process(pid).net_connections("tcp")
        if found.status != psutil.CONN_LISTEN and found.laddr.port == server.port
    }


@pytest.fixture(scope="module", params=["rsgi", "asgi"])
def impatient(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that waits for nobody; a whole body that is sent at once is always in time."""
    folder = tmp_path_factory.mktemp(request.param)
    with running_server(
        folder,
        interface=None if request.param == "rsgi" else request.param,
        model="",
        body_idle_timeout_s=0.5,
        body_timeout_s=1.5,
        send_timeout_s=0.5,
        idle_connection_s=0.5,
    ) as server:
        yield server


@pytest.fixture(scope="module", params=["rsgi", "asgi"])
def patient(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that takes pauses of any length, and no body for longer than 1.5 s."""
    folder = tmp_path_factory.mktemp(f"patient-{request.param}")
    interface = None if request.param == "rsgi" else request.param
    limits = {"body_idle_timeout_s": PATIENCE_S, "body_timeout_s": 1.5}
    with running_server(folder, interface=interface, model="", **limits) as server:
        yield server


def test_a_body_that_pauses_too_long_is_refused_and_its_connection_closed(
    impatient: Server,
) -> None:
    answer = impatient.exchange(UNENDED)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'{"detail":"the body stopped after 1 bytes, it may take 0.5 s"}' in answer


def test_a_body_that_never_pauses_long_and_never_ends_is_refused_too(patient: Server) -> None:
    with patient.connect() as connection:
        connection.sendall(POST + b"Content-Length: 60000\r\n\r\n{")
        for _ in range(int(PATIENCE_S / 0.05)):
            if select.select([connection], [], [], 0.05)[0]:
                break
            with contextlib.suppress(ConnectionError):  # it has just been closed
                connection.sendall(b" ")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"it may take 1.5 s" in answer


@pytest.mark.parametrize(
    "framing",
    [
        lambda body: b"Content-Length: %d\r\n\r\n%b" % (len(body) + 50, body),
        lambda body: b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body),
    ],
    ids=["shorter than announced", "without its last chunk"],
)
def test_a_body_that_breaks_off_is_not_taken_for_whole(
    impatient: Server, framing: Callable[[bytes], bytes]
) -> None:
    body = b'{"username": "user%d", "password": "long enough"}' % next(NUMBERS)
    answer = impatient.exchange(POST + framing(body), half_close=True)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"broke off after %d bytes" % len(body) in answer
    whole = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n"
    whole += b"%x\r\n%b\r\n0\r\nx: y\r\n\r\n" % (len(body), body)
    assert impatient.exchange(whole).startswith(b"HTTP/1.1 200 "), "the name must still be free"


@pytest.mark.parametrize(
    "beginning",
    [b"", b"PRI * HT", HTTP2],
    ids=["nothing", "half a preface", "HTTP/2 without a request"],
)
def test_connections_that_carry_nothing_are_closed(impatient: Server, beginning: bytes) -> None:
    impatient.exchange(beginning)  # reads until the server closes


def test_who_never_reads_an_answer_is_cut(impatient: Server) -> None:
    with impatient.connect(receive_buffer=4096) as connection:
        connection.sendall(BIG * 20)
        peer = connection.getsockname()
        wait_for(lambda: peer in peers_of(impatient), "the connection must be there first")
        wait_for(lambda: peer not in peers_of(impatient), "the connection is still there")


def test_an_address_has_its_number_of_connections_at_once(tmp_path: Path) -> None:
    with (
        running_server(tmp_path, model="", max_connections_per_address=4) as server,
        contextlib.ExitStack() as opened,
    ):
        wait_for(lambda: not peers_of(server), "who asked whether it is ready is still counted")
        ten = [opened.enter_context(server.connect()) for _ in range(10)]
        wait_for(lambda: sum(map(is_closed, ten)) == 6, "six too many are not closed")
        assert "address=127.0.0.1 limit=4" in server.wait_for_line("too_many_connections")


@INTERFACES
def test_live_is_answered_while_one_address_opens_all_connections_that_granian_takes(
    tmp_path: Path, interface: str | None
) -> None:
    with (
        running_server(
            tmp_path,
            interface=interface,
            model="",
            arguments=["--backpressure", "16"],
            max_connections_per_address=8,
            body_idle_timeout_s=0,
            body_timeout_s=0,
        ) as server,
        contextlib.ExitStack() as opened,
    ):
        for number in range(48):
            connection = opened.enter_context(server.connect())
            with contextlib.suppress(ConnectionError):  # it was one too many
                connection.sendall(UNENDED if number % 2 else b"")
        # an answer that is not there at the second look is cut with the rest: a probe comes again
        assert any(b'{"status":"alive"}' in server.exchange(LIVE) for _ in range(5))


def test_the_second_listener_answers_when_the_first_takes_no_connections(tmp_path: Path) -> None:
    port = free_port()
    with (
        running_server(
            tmp_path,
            model="",
            arguments=["--backpressure", "4"],
            max_connections_per_address=0,
            operations_address=f"127.0.0.1:{port}",
        ) as server,
        contextlib.ExitStack() as opened,
    ):
        for _ in range(8):
            opened.enter_context(server.connect())
        with server.connect() as waiting:
            waiting.sendall(LIVE)
            waiting.settimeout(0.5)
            with pytest.raises(TimeoutError):  # or this proves nothing
                waiting.recv(1)
        beside = Server(f"http://127.0.0.1:{port}", server.process, server.log)
        assert b'{"status":"alive"}' in beside.exchange(LIVE)
        ready = beside.exchange(LIVE.replace(b"/live", b"/ready"))
        assert ready.startswith(b"HTTP/1.1 503 ")
        assert b'"reason":"no_model_loaded"' in ready
        assert b"llmhost_" in beside.exchange(LIVE.replace(b"/health/live", b"/metrics"))
        head = beside.exchange(LIVE.replace(b"GET", b"HEAD"))
        assert head.startswith(b"HTTP/1.1 200 ")
        assert head.endswith(b"\r\n\r\n")
        for other in (
            LIVE.replace(b"/health/live", b"/system/info"),
            b"no HTTP\r\n\r\n",
            b"\0" * 9000,
        ):
            assert b"200" not in beside.exchange(other)


@INTERFACES
def test_sigterm_ends_what_is_still_open_after_the_drain(
    tmp_path: Path, interface: str | None
) -> None:
    with (
        running_server(
            tmp_path,
            interface=interface,
            model="",
            drain_timeout_s=0.2,
            body_idle_timeout_s=0,
            body_timeout_s=0,
        ) as server,
        contextlib.ExitStack() as opened,
    ):
        for beginning in (b"", b"PRI * HT", b"GET / HT", HTTP2, UNENDED):
            opened.enter_context(server.connect()).sendall(beginning)
        opened.enter_context(server.connect(receive_buffer=4096)).sendall(BIG * 20)
        wait_for(lambda: len(peers_of(server)) == 6, "they must be open or this proves nothing")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0
        assert "connections_cut" in server.log.read_text()


def test_a_body_that_never_ends_does_not_keep_a_server_that_has_nothing_to_do(
    tmp_path: Path,
) -> None:
    with (
        running_server(tmp_path, model="", drain_timeout_s=600) as server,
        server.connect() as endless,
    ):
        endless.sendall(UNENDED)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0


def test_a_unix_socket_is_served_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with running_server(
        tmp_path, model="", wait=False, arguments=["--uds", str(path)], drain_timeout_s=0.2
    ) as server:
        server.wait_for_line(f"ready on http://unix:{path}")
        with socket.socket(socket.AF_UNIX) as asking, socket.socket(socket.AF_UNIX) as unended:
            for connection, beginning in ((asking, LIVE), (unended, UNENDED)):
                connection.settimeout(PATIENCE_S)
                connection.connect(str(path))
                connection.sendall(beginning)
            assert read_all(asking).startswith(b"HTTP/1.1 200 ")
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(PATIENCE_S) == 0
