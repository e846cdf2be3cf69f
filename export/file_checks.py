"""Refuse files that are not what their names say, and put other libraries' errors in one sentence.

Knows files, not models.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from export.errors import ExportError, SourceUnusable

LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
HTML: Final = (b"<!doctype", b"<html", b"<head", b"<?xml")
HEAD_BYTES: Final = 512
MAX_JSON_BYTES: Final = 1 << 28
"""The largest tokenizers have some 30 MB."""
SHOWN_CHARACTERS: Final = 200


def refuse_stand_in(path: Path) -> None:
    """Refuse what is often found in place of a file that was not downloaded.

    Raises:
        SourceUnusable: the file can't be read, is empty, a Git LFS pointer or an HTML page.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise SourceUnusable(f"{path} can't be read: {error.strerror}") from error
    if not head:
        raise SourceUnusable(f"{path} is empty")
    if head.startswith(LFS_POINTER):
        raise SourceUnusable(f"{path} is a Git LFS pointer, `git lfs pull` fetches the file itself")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(HTML):
        raise SourceUnusable(f"{path} is an HTML page, not the file that its name says")


def read_text(path: Path) -> str:
    """The text in a file.

    Raises:
        SourceUnusable: the file is not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise SourceUnusable(f"{path} is not UTF-8: byte {error.start} is 0x{byte:02x}") from error


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        SourceUnusable: the file is no UTF-8, no JSON, or not an object.
    """
    refuse_stand_in(path)
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise SourceUnusable(f"{path} has {size} bytes, the limit is {MAX_JSON_BYTES}")
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise SourceUnusable(f"{path} is not JSON: {error.msg} at {where}") from error
    except (ValueError, RecursionError) as error:
        raise SourceUnusable(f"{path} is not JSON: {sentence(error)}") from error
    if not isinstance(value, dict):
        raise SourceUnusable(f"{path} holds {shown(value)}, expected an object")
    return value


def shown(value: object) -> str:
    """A value as Python writes it, cut to a length that fits into a sentence."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def sentence(error: BaseException) -> str:
    """The first sentence of another library's error, or the error's kind if it says nothing."""
    lines = str(error).strip().splitlines() or [""]
    first = re.split(r"(?<=[^.\s][.!?])\s+(?=[A-Z])", lines[0].strip(), maxsplit=1)[0]
    said = first.rstrip(".:! ")[: 2 * SHOWN_CHARACTERS]
    if isinstance(error, (OSError, ValueError)) and said:
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn any error that another library raises inside the block into `SourceUnusable`.

    Only for calls that read what someone else has written: there every error is the file's.

    Raises:
        SourceUnusable: `what`, followed by the first sentence of the error.
    """
    try:
        yield
    except ExportError:
        raise
    except Exception as error:  # these libraries share no base class and raise whatever they meet
        raise SourceUnusable(f"{what}: {sentence(error)}") from error
