"""How log lines are written: a time, a level, an event word, then `key=value`; or as JSON.

What a client sent can neither begin a line of its own nor pass for another key: a value with
spaces, quotes or control characters is quoted, and no control character is written as it is. A
line that is written while a request is served has that request's id.
"""

import copy
import logging
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from app.current_request import current_request
from app.settings import InvalidSetting, Settings, load_settings

LINE: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
_PLACEHOLDER: Final = re.compile(r"%[-#0 +]*[\d*]*(?:\.[\d*]+)?([a-zA-Z%])")
_KEY: Final = re.compile(r"(\w+)=$")
_EVENT: Final = re.compile(r"[a-z][a-z0-9_]*")
_PLAIN: Final = re.compile(r'[^\s"=\\]+')
# Granian logs to handlers of its own; the path in its access log is the client's.
_GRANIAN: Final = "_granian"
_GRANIANS_ACCESS: Final = "granian.access"
# Said before anything is loaded, of a port that answers nothing yet.
_PREMATURE: Final = ("Listening at", "Starting granian", "Spawning worker", "Started worker")


def configure_logging() -> None:
    """Write what this project and its libraries log to the standard error stream."""
    settings = _settings()
    handler = _CurrentStderr()
    handler.setFormatter(formatter(settings))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # lists its own parts
    for theirs in logging.getLogger(_GRANIAN).handlers:
        theirs.setFormatter(formatter(settings))
    for theirs in logging.getLogger(_GRANIANS_ACCESS).handlers:
        theirs.addFilter(_write_out)


def formatter(settings: Settings | None = None) -> logging.Formatter:
    """Make the formatter that the settings ask for; also named in `granian_logging.json`."""
    chosen = settings or _settings()
    return JsonFormatter() if chosen.log_format == "json" else LineFormatter(LINE)


class NotPremature(logging.Filter):
    """Leaves out what Granian says before the server is ready; our ready line says it later."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be written."""
        return not record.getMessage().startswith(_PREMATURE)


class LineFormatter(logging.Formatter):
    """Formats a record as one line, and a traceback as indented ones below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record; it stays as it is for other handlers."""
        line = copy.copy(record)
        line.exc_text = None
        if isinstance(record.args, tuple) and isinstance(record.msg, str):
            line.args = _quoting(record.msg, record.args)
        text = escaped(line.getMessage())
        request = current_request()
        if request is not None and " request_id=" not in text:
            text = f"{text} request_id={quoted(request.request_id)}"
        line.msg, line.args = text, ()
        return super().format(line)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 # logging's
        """Write the time as ISO 8601 does, in UTC."""
        return _time(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 # logging's name
        """Format a traceback: an exception's text may have lines too."""
        lines = super().formatException(ei).split("\n")  # type: ignore[arg-type] # passed on
        return "\n".join(f"    {escaped(line)}" for line in lines)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, event, message, and its values."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the record."""
        message = record.getMessage()
        word = _EVENT.match(message)
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": word[0] if word else "log",
            "message": message,
        }
        request = current_request()
        if request is not None:
            line["request_id"] = request.request_id
        for key, value in [*_values(record), *getattr(record, "security", {}).items()]:
            line.setdefault(key, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


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


class _CurrentStderr(logging.StreamHandler[Any]):
    """Writes to what standard error is now: a progress line may stand in for it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def _settings() -> Settings:
    try:
        return load_settings()
    except InvalidSetting:  # which the start says, in this format
        return Settings()


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _placeholders(template: str, values: tuple[object, ...]) -> Iterator[tuple[str, str, object]]:
    """A template's placeholders with the key before each ("" without one) and its value."""
    found = [match for match in _PLACEHOLDER.finditer(template) if match[1] != "%"]
    if len(found) == len(values):  # else a `*`, or a mistake that logging reports
        for match, value in zip(found, values, strict=True):
            key = _KEY.search(template, 0, match.start())
            yield match[0], key[1] if key else "", value


def _quoting(template: str, values: tuple[object, ...]) -> tuple[object, ...]:
    """Quote the values whose placeholder is the `%s` of a `key=%s`."""
    return (
        tuple(
            quoted(value) if key and placeholder == "%s" else value
            for placeholder, key, value in _placeholders(template, values)
        )
        or values
    )


def _values(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    """The keys and values of a record."""
    if isinstance(record.args, tuple) and isinstance(record.msg, str):
        for _, key, value in _placeholders(record.msg, record.args):
            if key:
                number = isinstance(value, int | float) or value is None
                yield key, value if number else str(value)


def _write_out(record: logging.LogRecord) -> bool:
    record.msg, record.args = escaped(record.getMessage()), ()
    return True
