"""What ends up in the log, whatever clients send."""

import io
import logging

import pytest

from app.process.logs import LineFormatter, configure_logging


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
