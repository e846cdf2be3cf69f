"""HTTP/1.1 as bytes: requests of any shape, and answers as they come.

For measurements that a client library would not let send what they send. Knows no endpoint.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

LONGEST_HEAD: Final = 1 << 20
"""Bytes; also what a reader buffers."""
_WITHOUT_BODY: Final = (204, 304)


class BadAnswer(Exception):
    """What came is no HTTP answer; the text quotes it."""


class NoAnswer(Exception):
    """The connection ended before the first byte of an answer."""


@dataclass(frozen=True)
class Answer:
    """One answer, whole or broken off."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    """By lower-case name; the last one of a name counts."""
    body: bytes = b""
    whole: bool = True
    """Whether the body came to its end."""

    @property
    def media_type(self) -> str:
        """The content type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def keeps_open(self) -> bool:
        """Whether another request may follow on the connection."""
        return self.whole and self.headers.get("connection", "").lower() != "close"


def request(
    method: str, target: str, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()
) -> bytes:
    """Write a request with its Host and, if there is a body, its Content-Length and type JSON.

    Headers that are given replace these.
    """
    given = list(headers)
    names = {name.lower() for name, _ in given}
    fields = [("host", "127.0.0.1")]
    if body:
        fields += [("content-type", "application/json"), ("content-length", str(len(body)))]
    fields = [(name, value) for name, value in fields if name not in names] + given
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def read_answer(reader: asyncio.StreamReader, *, to_head: bool = False) -> Answer:
    """Read one answer, passing over interim ones.

    Args:
        reader: made with `limit=LONGEST_HEAD`.
        to_head: whether the request was HEAD, whose answer has no body.

    Raises:
        NoAnswer: the connection ended, or was reset, before the first byte.
        BadAnswer: what came is not HTTP.
    """
    while True:
        status, headers = await _read_head(reader)
        if status >= 200:
            break
    if to_head or status in _WITHOUT_BODY:
        return Answer(status, headers)
    body = bytearray()
    try:
        await _read_body(reader, headers, body)
    except (asyncio.IncompleteReadError, ConnectionError):
        return Answer(status, headers, bytes(body), whole=False)
    return Answer(status, headers, bytes(body))


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            raise NoAnswer from None
        raise BadAnswer(f"no end of its head: {error.partial[:200]!r}") from None
    except asyncio.LimitOverrunError:
        raise BadAnswer(f"a head of more than {LONGEST_HEAD} bytes") from None
    except ConnectionError as error:
        raise NoAnswer from error
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
        raise BadAnswer(f"no status line: {first[:200]!r}")
    pairs = [line.partition(":") for line in lines]
    return int(rest[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _read_body(
    reader: asyncio.StreamReader, headers: dict[str, str], body: bytearray
) -> None:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        size = -1
        while size:
            line = await reader.readline()
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                if not line:
                    raise asyncio.IncompleteReadError(line, None) from None
                raise BadAnswer(f"no size of a chunk: {line[:200]!r}") from None
            await _read_exactly(reader, size, body)
            await reader.readuntil(b"\r\n")
    elif "content-length" in headers:
        await _read_exactly(reader, int(headers["content-length"]), body)
    else:
        body += await reader.read(-1)


async def _read_exactly(reader: asyncio.StreamReader, size: int, body: bytearray) -> None:
    try:
        body += await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        body += error.partial
        raise
