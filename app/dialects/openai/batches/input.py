r"""Read the input of a batch: what each line asks for, or why it can't be asked.

Lines end with `\n`; of a line that is longer than a body may be, only its place is kept. Knows
nothing of what becomes of a line.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any, Final, NamedTuple

import msgspec

from app.dialects.openai.schemas import ErrorDetail
from app.excerpts import shown

MAX_ID_CHARACTERS: Final = 512


class RawLine(NamedTuple):
    """A line of a file."""

    number: int
    """From 0; empty lines count."""
    start: int
    length: int
    text: bytes | None
    """None: it is too long to be read."""

    @property
    def blank(self) -> bool:
        """Whether it is white space alone, or nothing."""
        return self.text is not None and (not self.text or self.text.isspace())


class Asked(msgspec.Struct, frozen=True):
    """What a line asks for."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Streaming(msgspec.Struct, frozen=True):
    stream: Any = None


class _OnlyId(msgspec.Struct, frozen=True):
    custom_id: Any = None


class BadLine(Exception):
    """A line that can't be asked."""

    def __init__(
        self, code: str, message: str, param: str | None = None, custom_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.detail = ErrorDetail(message, "invalid_request_error", param, code)
        self.custom_id = custom_id


_DECODER: Final = msgspec.json.Decoder(Asked)
_ID_DECODER: Final = msgspec.json.Decoder(_OnlyId)
_BODY_DECODER: Final = msgspec.json.Decoder(_Streaming)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


async def lines_of(pieces: AsyncIterable[bytes], max_bytes: int) -> AsyncGenerator[RawLine, None]:
    """Cut a file into its lines, those that are blank included.

    A file is told line by line so that whoever reads it can let others have their turn between two:
    a piece may be nothing but line ends.

    Args:
        pieces: the file.
        max_bytes: of a line that is read; memory holds one such line and one piece.
    """
    held: list[bytes] = []
    number = start = length = 0

    def line() -> RawLine:
        return RawLine(number, start, length, b"".join(held) if length <= max_bytes else None)

    async for piece in pieces:
        begin = 0
        while (end := piece.find(b"\n", begin)) >= 0:
            length += end - begin
            if length <= max_bytes:
                held.append(piece[begin:end])
            yield line()
            held.clear()
            start, number, length, begin = start + length + 1, number + 1, 0, end + 1
        length += len(piece) - begin
        if length <= max_bytes:
            held.append(piece[begin:])
        else:
            held.clear()
    yield line()


def read_line(text: bytes | None, endpoint: str, max_bytes: int) -> Asked:
    """Read what a line asks for.

    Args:
        text: the line; None: it is longer than `max_bytes`.
        endpoint: the path that its batch is for.
        max_bytes: of a line.

    Raises:
        BadLine: it can't be asked.
    """
    if text is None:
        raise BadLine("line_too_long", f"the line has more than {max_bytes} bytes")
    try:
        asked = _DECODER.decode(text)
        streaming = _BODY_DECODER.decode(asked.body).stream
    except _UNREADABLE as error:
        message = f"the line is no request: {error}"
        raise BadLine("invalid_json_line", message, None, _id_in(text)) from error
    custom_id = asked.custom_id
    if not 0 < len(asked.custom_id) <= MAX_ID_CHARACTERS:
        limit = f"1 to {MAX_ID_CHARACTERS} characters"
        raise BadLine("invalid_custom_id", f"custom_id has not {limit}", "custom_id")
    if asked.method != "POST":
        message = f"method is {shown(asked.method)}, expected POST"
        raise BadLine("invalid_method", message, "method", custom_id)
    if asked.url != endpoint:
        message = f"url is {shown(asked.url)}, the batch is for {endpoint}"
        raise BadLine("invalid_url", message, "url", custom_id)
    if streaming:
        raise BadLine("invalid_value", "a batch streams nothing", "body.stream", custom_id)
    return asked


def _id_in(text: bytes) -> str | None:
    try:
        found = _ID_DECODER.decode(text).custom_id
    except _UNREADABLE:
        return None
    return found if isinstance(found, str) and len(found) <= MAX_ID_CHARACTERS else None


def check_new(custom_id: str, seen: set[bytes]) -> None:
    """Note the id of a line.

    Args:
        custom_id: the id.
        seen: digests of those before it: 50,000 ids themselves may be 100 MB.

    Raises:
        BadLine: a line before it has it.
    """
    digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
    if digest in seen:
        message = "a line before it has the same custom_id"
        raise BadLine("duplicate_custom_id", message, "custom_id", custom_id)
    seen.add(digest)
