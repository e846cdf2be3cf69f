"""How log lines are written: an event word, then `key=value`.

What a client sent can neither begin a line of its own nor pass for another key: a value with
spaces, quotes or control characters is quoted, and no control character is written as it is.
"""

import copy
import logging
import re
from typing import Final

_PLACEHOLDER: Final = re.compile(r"%[-#0 +]*[\d*]*(?:\.[\d*]+)?([a-zA-Z%])")
_PLAIN: Final = re.compile(r'[^\s"=\\]+')
# Granian logs to handlers of its own; the path in its access log is the client's.
_GRANIAN: Final = ("_granian", "granian.access")


def configure_logging() -> None:
    """Write what this project and its libraries log to the standard error stream."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("[%(levelname)s] %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # lists its own parts
    for name in _GRANIAN:
        for theirs in logging.getLogger(name).handlers:
            theirs.addFilter(_write_out)


class LineFormatter(logging.Formatter):
    """Formats a record as one line, and a traceback as indented ones below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record; it stays as it is for other handlers."""
        line = copy.copy(record)
        line.exc_text = None
        if isinstance(record.args, tuple) and isinstance(record.msg, str):
            line.args = _quoting(record.msg, record.args)
        line.msg, line.args = escaped(line.getMessage()), ()
        return super().format(line)

    def formatException(self, ei: object) -> str:  # noqa: N802 # logging's name
        """Format a traceback: an exception's text may have lines too."""
        lines = super().formatException(ei).split("\n")  # type: ignore[arg-type] # passed on
        return "\n".join(f"    {escaped(line)}" for line in lines)


def quoted(value: object) -> str:
    """Write a value so that it ends where it ends."""
    text = str(value)
    if _PLAIN.fullmatch(text) and text.isprintable():
        return text
    return '"' + escaped(text.replace("\\", r"\\").replace('"', r"\"")) + '"'


def escaped(text: str) -> str:
    """Write what is not printable as Python would."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _quoting(template: str, values: tuple[object, ...]) -> tuple[object, ...]:
    """Quote the values whose placeholder is the `%s` of a `key=%s`."""
    found = [match for match in _PLACEHOLDER.finditer(template) if match[1] != "%"]
    if len(found) != len(values):  # a `*`, or a mistake that logging reports
        return values
    return tuple(
        quoted(value) if match[0] == "%s" and template[: match.start()].endswith("=") else value
        for match, value in zip(found, values, strict=True)
    )


def _write_out(record: logging.LogRecord) -> bool:
    record.msg, record.args = escaped(record.getMessage()), ()
    return True
