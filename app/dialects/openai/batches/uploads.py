"""Receive a file in a multipart form, piece by piece: no upload lies in memory as a whole.

Knows nothing of what is in it.
"""

from typing import Any, Final, Protocol

from multipart import (  # type: ignore[import-untyped] # ships no types
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from app.dialects.kit.host import AnyRequest
from app.errors import InvalidParameter, RequestError

MULTIPART: Final = "multipart/form-data"
MAX_FIELDS: Final = 20
MAX_FIELD_BYTES: Final = 4096
MAX_CONTENT_TYPE_CHARACTERS: Final = 256


class Target(Protocol):
    """Where the bytes of a file go."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes."""


async def receive_file(request: AnyRequest, target: Target, max_bytes: int) -> dict[str, str]:
    """Read a form whose field `file` is a file.

    Args:
        request: whose body it is.
        target: takes the file.
        max_bytes: of the file.

    Returns:
        The other fields, and the file's name as `filename`.

    Raises:
        RequestError: it is no such form.
        InvalidParameter: a field or the file is too large, or there is no file.
    """
    header = request.headers.get("content-type", "")[: MAX_CONTENT_TYPE_CHARACTERS + 1]
    content_type, options = parse_options_header(header)
    if len(header) > MAX_CONTENT_TYPE_CHARACTERS or content_type != MULTIPART:
        raise InvalidParameter("Content-Type", header, MULTIPART)
    form = _Form(target, max_bytes)
    try:
        with PushMultipartParser(
            options.get("boundary", ""), max_segment_count=MAX_FIELDS
        ) as parser:
            async for chunk in request.stream():
                for event in parser.parse(chunk):
                    await form.take(event)
            for event in parser.parse(b""):
                await form.take(event)
    except (MultipartError, UnicodeDecodeError) as error:
        raise RequestError(
            f"the form is malformed, is not UTF-8, or has more than {MAX_FIELDS} fields"
        ) from error
    if "filename" not in form.fields:
        raise InvalidParameter("file", None, "a file in a form")
    return form.fields


class _Form:
    """What has come of a form so far."""

    def __init__(self, target: Target, max_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self._target = target
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._name = ""
        self._content = b""

    async def take(self, event: Any) -> None:
        if isinstance(event, MultipartSegment):
            self._name, self._content = event.name, b""
            if self._name == "file":
                if "filename" in self.fields:
                    raise RequestError("the form has more than one file")
                self.fields["filename"] = event.filename or "upload"
        elif self._name == "file":
            if event:
                self._num_bytes += len(event)
                if self._num_bytes > self._max_bytes:
                    limit = f"at most {self._max_bytes} bytes"
                    raise InvalidParameter("file", "a file with more", limit)
                await self._target.write(bytes(event))
        elif event:
            self._content += event
            if len(self._content) > MAX_FIELD_BYTES:
                raise InvalidParameter(
                    self._name[:MAX_FIELDS], "a longer text", f"at most {MAX_FIELD_BYTES} bytes"
                )
        elif self._name != "filename":
            self.fields[self._name] = self._content.decode()
