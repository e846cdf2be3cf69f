"""Mutations of a request around its body: method, path, query and headers, and then the bytes.

Knows HTTP/1.1, no endpoint.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, quote_from_bytes

from bench.fuzz.values import FORGED, TEXTS

Header = tuple[bytes, bytes]
LONGEST_HEAD: Final = 8_000
MOST_HEADERS: Final = 60
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET: Final = re.compile(rb"/[!$-;=?-_a-z|~]*")
_VALUE: Final = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")


@dataclass
class Request:
    """A request before it becomes bytes."""

    method: bytes
    target: bytes
    headers: list[Header] = field(default_factory=list)
    """Without Content-Length, unless a wrong one was chosen."""
    body: bytes = b""

    def encoded(self) -> bytes:
        """Write it, with the length of its body."""
        headers = self.headers
        names = {name.lower() for name, _ in headers}
        if (self.body or self.method == b"POST") and not names & {
            b"content-length",
            b"transfer-encoding",
        }:
            headers = [*headers, (b"content-length", b"%d" % len(self.body))]
        lines = [b"%b %b HTTP/1.1" % (self.method, self.target)]
        lines += [b"%b: %b" % header for header in headers]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body

    @property
    def well_formed(self) -> bool:
        """Whether it is HTTP of a reasonable size, so that the application must answer it."""
        names = [name.lower() for name, _ in self.headers]
        return (
            bool(_TOKEN.fullmatch(self.method))
            and self.method.upper() != b"CONNECT"
            and bool(_TARGET.fullmatch(self.target))
            and all(_TOKEN.fullmatch(n) and _VALUE.fullmatch(v) for n, v in self.headers)
            and names.count(b"host") == 1
            and not {b"content-length", b"transfer-encoding", b"upgrade", b"connection"} & {*names}
            and len(names) <= MOST_HEADERS
            and len(self.target) + sum(len(n) + len(v) for n, v in self.headers) <= LONGEST_HEAD
        )


def mutate_method(request: Request, rng: random.Random) -> None:
    """Take another method, known or not."""
    known = (b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS")
    strange = (
        b"TRACE",
        b"CONNECT",
        b"get",
        b"PROPFIND",
        b"A" * 3_000,
        b"G ET",
        b"",
        b"\xff",
        b"PRI",
    )
    request.method = rng.choice(known if rng.random() < 0.7 else strange)


def mutate_path(request: Request, rng: random.Random) -> None:
    """Change the path: escapes, doubled or missing parts, other forms of a target."""
    path, mark, query = request.target.partition(b"?")
    at = rng.randrange(len(path) + 1)
    strange = rng.choice(
        [
            *(b"%00", b"%0d%0a" + FORGED.encode(), b"%ff", b"%c0%ae", b"%ed%a0%80", b"%2e%2e%2f"),
            *(b"%2f", b"//", b"/../", b"/./", b"%", b"%zz", b"%25%30%30", b";a=b", b"\\", b"*"),
            *(
                b"%f0%9f%98%80",
                "é".encode(),
                b" ",
                b"\x00",
                b"#a",
                b"a" * 3_000,
                b"%41" * 300,
                b"{x}",
            ),
        ]
    )
    match rng.randrange(7):
        case 0 | 1:
            path = path[:at] + strange + path[at:]
        case 2:
            path += b"/"
        case 3:
            path = rng.choice([b"/", b"/schema", b"/schema/files", b"/schema/files/../x"]) + strange
        case 4:
            path = path[:at]
        case 5:
            path = path.upper()
        case _:
            path = rng.choice([b"*", b"http://127.0.0.1" + path, b"/" + path, b"", b"?", b"//h/a"])
    request.target = path + mark + query


def mutate_query(request: Request, rng: random.Random) -> None:
    """Add to the query, change its values, or write it strangely."""
    path, _, query = request.target.partition(b"?")
    name = rng.choice([b"limit", b"offset", b"chat_id", b"stream_protocol", b"a", b"%00", b""])
    strange = [
        *(b"&", b"=", b"a=b=c", b"%", b"%zz", b"\xff", "é=ü".encode(), b"+", b"a[]=1&a[]=2", b";"),
        *(b"&" * 500, b"a=1&" * 300, b"a=" + b"b" * 3_000, b"limit=1&limit=2", b"limit=1e1"),
    ]
    match rng.randrange(4):
        case 0:
            query = rng.choice(strange)
        case 1:
            query += b"&" + rng.choice(strange)
        case 2:
            query = b"&".join(part.partition(b"=")[0] for part in query.split(b"&"))
        case _:
            query += b"&" * bool(query) + name + b"=" + _escaped(rng.choice(TEXTS))
    request.target = path + b"?" + query


def mutate_headers(request: Request, rng: random.Random) -> None:
    """Remove, double or add a header, or change the value of one."""
    headers = request.headers
    if not headers:
        headers.append(rng.choice(_HEADERS))
    place = rng.randrange(len(headers))
    name, value = headers[place]
    match rng.randrange(6):
        case 0:
            del headers[place]
        case 1:
            headers.append((name, rng.choice([value, b"", b"x", _latin(rng.choice(TEXTS))])))
        case 2:
            headers[place] = (name, _latin(rng.choice(TEXTS)))
        case 3:
            at = rng.randrange(len(value) + 1)
            headers[place] = (name, value[:at] + bytes([rng.randrange(256)]) + value[at:])
        case _:
            headers.append(rng.choice(_HEADERS))


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Change a written request so that it is, most of the time, no HTTP any more."""
    head, blank, body = content.partition(b"\r\n\r\n")
    return rng.choice(_DAMAGES)(head, blank + body, rng)


def _escaped(text: str) -> bytes:
    return quote(text.encode("utf-8", "surrogatepass"), safe="").encode()


def _latin(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")[:2_000]


def _b(*pairs: str) -> list[Header]:
    found = [pair.partition(":") for pair in pairs]
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, _, value in found]


_HEADERS: Final[list[Header]] = [
    *_b("accept:text/event-stream", "accept:application/x-ndjson", "accept:*/*;q=NaN", "accept:"),
    *_b(
        "accept:application/openmetrics-text", "accept:text/html", "accept:a/b,,;q=", "te:trailers"
    ),
    *_b(
        "accept-encoding:gzip",
        "accept-encoding:br;q=1e999",
        "content-encoding:gzip",
        "range:bytes=0-",
    ),
    *_b(
        "content-type:text/plain", "content-type:application/json; charset=utf-16", "content-type:x"
    ),
    *_b(
        "content-type:multipart/form-data",
        "content-type:multipart/form-data; boundary=",
        "expect:x",
    ),
    *_b(
        "content-type:multipart/form-data; boundary=a",
        "content-type:application/xml",
        "content-type:;",
    ),
    *_b("content-type:application/x-www-form-urlencoded; charset=utf-7", "expect:100-continue"),
    *_b(
        "authorization:Bearer",
        "authorization:Bearer  ",
        "authorization:Basic YTpi",
        "authorization:x",
    ),
    *_b(
        "authorization:Bearer sk-llmhost-", "authorization:Bearer a.b.c", "authorization:Bearer ..."
    ),
    *_b("authorization:Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "authorization:Bearer é"),
    *_b("authorization:Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA", "authorization:bearer \xff\xfe"),
    *_b(
        "x-forwarded-for:1.2.3.4",
        "x-forwarded-for:1.2.3.4:99, ::1",
        "x-forwarded-for:,,",
        "forwarded:x",
    ),
    *_b("x-request-id:a b", "x-request-id:" + "r" * 200, "x-request-id:\xe9", "x-stainless-lang:x"),
    *_b(
        "origin:null",
        "origin:http://other.example",
        "sec-fetch-site:cross-site",
        "sec-fetch-site:x",
    ),
    *_b(
        "host:other.example",
        "host:",
        "host:[::1]:99999",
        "cookie:a=b; c",
        "cookie:=;;",
        "referer:x",
    ),
    *_b("if-none-match:*", "if-modified-since:x", "transfer-encoding:gzip", "transfer-encoding:x"),
    *_b(
        "content-length:5",
        "content-length:-1",
        "content-length:99999999999999999999",
        "content-length:x",
    ),
    *_b(
        "connection:upgrade", "upgrade:websocket", "upgrade:h2c", "connection:close", "keep-alive:x"
    ),
    *_b("x-http-method-override:DELETE", "access-control-request-method:POST", "prefer:wait=NaN"),
    *_b(
        "x-a:" + "b" * 5_000,
        "x-a:\x00",
        "x a:b",
        ":b",
        "x-\xff:b",
        "x-a:b\rc",
        "traceparent:00-0-0-0",
    ),
]


def _flip(head: bytes, rest: bytes, rng: random.Random) -> bytes:
    content = bytearray(head + rest)
    for _ in range(rng.randrange(1, 6)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def _chunked(head: bytes, rest: bytes, chunks: bytes) -> bytes:
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    return b"\r\n".join([*kept, b"transfer-encoding: chunked"]) + b"\r\n\r\n" + chunks + rest[:0]


_DAMAGES: Final[list[Callable[[bytes, bytes, random.Random], bytes]]] = [
    _flip,
    _flip,
    lambda head, rest, rng: (head + rest)[: rng.randrange(len(head) + 1)],
    lambda head, rest, rng: (head + rest)[: len(head) + rng.randrange(len(rest) + 1)],
    lambda head, rest, _: head.replace(b"\r\n", b"\n") + rest.replace(b"\r\n", b"\n", 2),
    lambda head, rest, _: head.replace(b"HTTP/1.1", b"HTTP/1.0") + rest,
    lambda head, rest, _: head.replace(b" HTTP/1.1", b"") + rest,
    lambda head, rest, _: head.replace(b"HTTP/1.1", b"HTTP/9.9") + rest,
    lambda head, rest, _: head.replace(b": ", b" : ", 2) + rest,
    lambda head, rest, _: head.replace(b": ", b":\r\n folded ", 1) + rest,
    lambda head, rest, _: head + b"\r\ncontent-length: 3\r\ncontent-length: 4" + rest,
    lambda head, rest, _: head + b"\r\ntransfer-encoding: chunked" + rest,
    lambda head, rest, _: head + b"".join(b"\r\nx-%d: y" % i for i in range(200)) + rest,
    lambda head, rest, _: head + b"\r\nx-a: " + b"b" * 500_000 + rest,
    lambda head, rest, _: b"\r\n\r\n" + head + rest,
    lambda head, rest, _: (head + rest) * 3,
    lambda head, rest, _: _chunked(head, rest, b"5\r\nabcde\r\n0\r\n\r\n"),
    lambda head, rest, _: _chunked(head, rest, b"-5\r\nabcde\r\n0\r\n\r\n"),
    lambda head, rest, _: _chunked(head, rest, b"ffffffffffffffff\r\nabc"),
    lambda head, rest, _: _chunked(head, rest, b"5;a=" + b"b" * 9_000 + b"\r\nabcde\r\n0\r\n\r\n"),
    lambda head, rest, _: _chunked(head, rest, b"2\r\n{}\r\n0\r\nx-trailer: a\r\n\r\n"),
    lambda head, rest, _: _chunked(head, rest, b"5\r\nabcdeX0\r\n\r\n"),
    lambda *_: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    lambda *_: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    lambda *_: b"\x00" * 3_000,
    lambda *_: b"GET /\r\n\r\n",
    lambda *_: quote_from_bytes(bytes(range(256))).encode() + b"\r\n\r\n",
]
