"""Requests as no client library writes them, over bare sockets, on both interfaces."""

import struct
from collections.abc import Iterator

import pytest

from tests.e2e.server import Server, running_server


@pytest.fixture(scope="module", params=["rsgi", "asgi"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    interface = None if request.param == "rsgi" else request.param
    folder = tmp_path_factory.mktemp(request.param)
    with running_server(folder, interface=interface, model="") as running:
        yield running


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("OPTIONS * HTTP/1.1", 204),
        ("OPTIONS /unknown HTTP/1.1", 404),
        ("OPTIONS /health/live HTTP/1.1", 204),
        ("HEAD /health/live HTTP/1.1", 200),
        ("HEAD /health/ready HTTP/1.1", 503),
        ("HEAD /v1/models HTTP/1.1", 200),
        ("HEAD /register HTTP/1.1", 405),
        ("TRACE /health/live HTTP/1.1", 405),
        ("BREW /health/live HTTP/1.1", 405),
        ("GET http://localhost/health/live HTTP/1.1", 200),
        ("GET /health/live?ä=ü€ HTTP/1.1", 200),
        ("GET /health/live?%FF%00=%0A HTTP/1.1", 200),
        ("GET /v1/models/ä€ HTTP/1.1", 404),
        ("GET /v1/models/%FF%00 HTTP/1.1", 404),
        ("GET /api/ai/huggingface/%00/%0A/chat HTTP/1.1", 405),
        ("GET /schema/files/%00 HTTP/1.1", 404),
        ("GET /schema/files/..%2f..%2f__init__.py HTTP/1.1", 404),
        ("GET /schema/nowhere HTTP/1.1", 404),
        ("GET // HTTP/1.1", 200),
        ("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1", 404),
    ],
)
def test_an_odd_request_has_its_answer_and_is_no_failure(
    server: Server, line: str, status: int
) -> None:
    answer = server.exchange(f"{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"x-content-type-options: nosniff" in head
    assert (body == b"") is (line.startswith("HEAD") or status == 204)
    assert (b"<html" in body) is line.startswith("GET // "), "that path is the page's"


@pytest.mark.parametrize("host", [b"event: error", b'<a>{"b": "c"', b"[::1]:99999", b"\xb6:x", b""])
@pytest.mark.parametrize("path", [b"/nowhere", b"/models/available", b"/v1/models"])
def test_a_host_that_is_none_is_no_failure(server: Server, host: bytes, path: bytes) -> None:
    request = b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (path, host)
    status = server.exchange(request).split(b" ")[1]
    assert status in (b"200", b"400", b"403", b"404"), status


def test_a_line_break_in_a_path_begins_no_line_of_the_log(server: Server) -> None:
    forged = b"GET /schema/files/%0a[ERROR]%20forged HTTP/1.0\r\n\r\n"
    assert server.exchange(forged).startswith(b"HTTP/1.0 404 ")
    server.exchange(b"POST /%0a[ERROR]%20forged HTTP/1.0\r\n\r\n")
    assert not [line for line in server.lines() if line.startswith("[ERROR]")]


def test_an_open_server_is_not_called_by_a_name_that_is_not_its_own(server: Server) -> None:
    request = b"GET /models/available HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n"
    assert server.exchange(request % b"rebound.example").startswith(b"HTTP/1.1 403 ")
    assert server.exchange(request % b"127.0.0.1:8000").startswith(b"HTTP/1.1 200 ")
    probe = b"GET /health/live HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n"
    assert server.exchange(probe).startswith(b"HTTP/1.1 200 ")


DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
GET, POST, HTTP = b"\x82", b"\x83", b"\x86"
"""Whole header fields of HPACK's static table."""
OK, NOT_FOUND = b"\x88", b"\x8d"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(*indexed: bytes, **named: str) -> bytes:
    """HPACK without compression: `path` and `authority` by their names' indexes."""
    index = {"authority": 1, "path": 4, "content_type": 31}
    literals = [bytes([index[name]]) if index[name] < 15 else b"\x0f\x10" for name in named]
    values = [bytes([len(value)]) + value.encode() for value in named.values()]
    return b"".join(indexed) + b"".join(map(bytes.__add__, literals, values))


def answers_of(received: bytes) -> dict[int, tuple[bytes, bytes]]:
    """By stream: the first byte of its headers, which is the status, and its body."""
    found: dict[int, tuple[bytes, bytes]] = {}
    while len(received) >= 9 + (length := int.from_bytes(received[:3], "big")):
        kind, stream = received[3], int.from_bytes(received[5:9], "big")
        payload, received = received[9 : 9 + length], received[9 + length :]
        if kind == HEADERS:
            found[stream] = (payload[:1], b"")
        elif kind == DATA:
            found[stream] = (found[stream][0], found[stream][1] + payload)
    return found


def test_http_2_is_served_on_one_connection(server: Server) -> None:
    body = b'{"username": "second", "password": "long enough"}'
    with server.connect() as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(SETTINGS, 0, 0)
            + frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                headers(GET, HTTP, path="/health/live", authority="localhost"),
            )
            + frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                3,
                headers(GET, HTTP, path="/nowhere", authority="localhost"),
            )
            + frame(
                HEADERS,
                END_HEADERS,
                5,
                headers(
                    POST,
                    HTTP,
                    path="/register",
                    authority="localhost",
                    content_type="application/json",
                ),
            )
            + frame(DATA, 0, 5, body)
            + frame(DATA, END_STREAM, 5)  # as clients end a body of unknown length
        )
        received, found = b"", {}
        while sum(body != b"" for _, body in found.values()) < 3:
            chunk = connection.recv(65536)
            assert chunk, received
            received += chunk
            found = answers_of(received)
    assert found[1] == (OK, b'{"status":"alive"}')
    assert found[3] == (NOT_FOUND, b'{"detail":"there is nothing at /nowhere"}')
    assert found[5][0] == OK
