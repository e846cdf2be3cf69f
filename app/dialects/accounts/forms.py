"""Read the form of `POST /login`: URL-encoded, multipart, or a JSON object in its place.

Not with Litestar, which takes unescaped letters, as curl sends them, for Latin-1, keeps the last
thousand forms in memory, passwords included, and decodes a part with whatever codec it names:
Python has some that take seconds for a few kilobytes.
"""

from typing import Final
from urllib.parse import parse_qsl

from multipart import (  # type: ignore[import-untyped] # ships no types
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from app.dialects.kit.body import Body, read_object
from app.dialects.kit.host import AnyRequest
from app.errors import RequestError

URL_ENCODED: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
MAX_FIELDS: Final = 20
MAX_CONTENT_TYPE_CHARACTERS: Final = 256


async def read_form(request: AnyRequest) -> Body:
    """Read a form, or a JSON object in its place.

    Raises:
        RequestError: it is neither.
    """
    header = request.headers.get("content-type", "")
    if len(header) > MAX_CONTENT_TYPE_CHARACTERS:
        raise RequestError(
            f"Content-Type has {len(header)} characters, "
            f"expected at most {MAX_CONTENT_TYPE_CHARACTERS}"
        )
    content_type, options = parse_options_header(header)
    if content_type not in (URL_ENCODED, MULTIPART):
        return await read_object(request)
    body = await request.body()
    try:
        if content_type == MULTIPART:
            return _parts(body, options.get("boundary", ""))
        fields = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
        return dict(fields)
    except ValueError as error:  # UnicodeDecodeError and MultipartError among them
        raise RequestError(
            f"the form is malformed, is not UTF-8, or has more than {MAX_FIELDS} fields"
        ) from error


def _parts(body: bytes, boundary: str) -> Body:
    """Read a multipart body; a file counts as a field that holds its content.

    Raises:
        ValueError: it is malformed, not UTF-8, or has too many parts.
    """
    found: Body = {}
    name, content = "", b""
    with PushMultipartParser(boundary, max_segment_count=MAX_FIELDS) as parser:
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                name, content = event.name, b""
            elif event:
                content += event
            else:
                found[name] = content.decode()
    return found
