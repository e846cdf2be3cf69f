"""What ends up in the log, whatever clients send."""

import contextvars
import io
import json
import logging
import re

import pytest

from app.current_request import begin_request
from app.process.logs import LINE, JsonFormatter, LineFormatter, configure_logging, formatter
from app.settings import Settings


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(written: io.StringIO) -> logging.Logger:
    handler = logging.StreamHandler(written)
    handler.setFormatter(LineFormatter("[%(levelname)s] %(message)s"))
    logger = logging.Logger("test")  # noqa: LOG001 # its handlers are not to outlive the test
    logger.addHandler(handler)
    return logger


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/health/live", "/health/live"),
        ("/hälth", "/hälth"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('say "so"', r'"say \"so\""'),
        ("back\\slash", r'"back\\slash"'),
        ("/a\n[ERROR] forged status=500", r'"/a\n[ERROR] forged status=500"'),
        ("\x1b[31m\u202e\u2028\x00\udcff", r'"\x1b[31m\u202e\u2028\x00\udcff"'),
        (42, "42"),
    ],
)
def test_a_value_ends_where_it_ends(logger, written, value, shown):
    logger.info("gone path=%s count=%d", value, 3)
    assert written.getvalue() == f"[INFO] gone path={shown} count=3\n"


def test_what_is_no_value_of_a_key_is_not_quoted_and_still_one_line(logger, written):
    logger.info("100%% of %s, %r, %.1f", "two words\n[ERROR] forged", "x", 0.25)
    logger.info("50% and no argument")
    logger.info("of %(name)s", {"name": "a\nb"})
    assert written.getvalue().splitlines() == [
        r"[INFO] 100% of two words\n[ERROR] forged, 'x', 0.2",
        "[INFO] 50% and no argument",
        r"[INFO] of a\nb",
    ]


def test_a_traceback_begins_no_line_like_a_record(logger, written):
    def fail() -> None:
        raise ValueError("a\n[ERROR] forged\x1b")

    try:
        fail()
    except ValueError:
        logger.exception("broken path=%s", "/a b")
    first, *below = written.getvalue().splitlines()
    assert first == '[ERROR] broken path="/a b"'
    assert below[-1] == r"    [ERROR] forged\x1b"
    assert all(line.startswith("    ") for line in below)


def test_a_record_stays_as_it_was_for_other_handlers(logger):
    records = []
    logger.addFilter(lambda record: records.append(record) or True)
    logger.info("gone path=%s", "a b")
    assert records[0].getMessage() == "gone path=a b"


def test_granians_access_log_is_one_line_for_one_request(monkeypatch, written):
    handler = logging.StreamHandler(written)
    access = logging.getLogger("granian.access")
    monkeypatch.setattr(access, "handlers", [handler])
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    configure_logging()
    access.warning("%(path)s %(status)d", {"path": "/a\nforged 100%", "status": 404})
    assert written.getvalue() == "/a\\nforged 100% 404\n"


def written_by(formatter: logging.Formatter, *message: object, **options: object) -> str:
    """A line that is written while request `r-1` is served."""

    def write() -> None:
        begin_request("r-1")
        handler = logging.StreamHandler(out := io.StringIO())
        handler.setFormatter(formatter)
        logger = logging.Logger("test")  # noqa: LOG001 # its handlers are not to outlive the test
        logger.addHandler(handler)
        logger.warning(*message, **options)
        lines.append(out.getvalue())

    lines: list[str] = []
    contextvars.Context().run(write)
    return lines[0]


def test_a_line_has_its_time_level_and_request():
    line = written_by(LineFormatter(LINE), "gone path=%s", "/a b")
    time, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert rest == 'WARNING test gone path="/a b" request_id=r-1\n'
    given = written_by(LineFormatter(LINE), "event request_id=%s", "r-2")
    assert given.count("request_id") == 1


def test_a_json_line_has_event_and_values():
    line = json.loads(
        written_by(JsonFormatter(), "gone path=%s count=%d of %s", "/a\nb", 3, "x", extra={})
    )
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "test",
        "event": "gone",
        "message": "gone path=/a\nb count=3 of x",
        "request_id": "r-1",
        "path": "/a\nb",
        "count": 3,
    }
    secure = {"security": {"event": "signed_in", "user": "ada"}}
    assert json.loads(written_by(JsonFormatter(), "%s", "signed_in", extra=secure))["user"] == "ada"


def test_a_json_line_has_its_traceback_in_it():
    error = ValueError("a\nb")
    text = written_by(JsonFormatter(), "broken", exc_info=(type(error), error, None))
    assert text.count("\n") == 1
    assert json.loads(text)["exception"].endswith("ValueError: a\nb")


def test_the_setting_chooses_the_format():
    assert isinstance(formatter(Settings(log_format="json")), JsonFormatter)
    assert isinstance(formatter(Settings()), LineFormatter)
