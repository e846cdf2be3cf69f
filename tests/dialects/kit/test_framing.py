import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from litestar import Request

from app.dialects.kit import framing as sse
from app.errors import EngineFailure
from tests.dialects.readers import read_events

parts = [
    "\n",
    "\r",
    "\r\n",
    " ",
    "a",
    "é😀",
    "\u2028",
    ":",
    "data: ",
    "[",
    "DONE]",
    "[DONE]",
    "[ERROR] x",
]
pieces = st.lists(st.lists(st.sampled_from(parts), min_size=1, max_size=4).map("".join), max_size=8)


@given(pieces)
@example(["a\r", "\nb"])
@example(["[DONE]"])
def test_events_joined_are_the_text_and_only_the_last_is_the_end(pieces):
    framing = sse.TextEvents()
    stream = b"".join([*(framing.encode(piece) for piece in pieces), framing.finish()])
    *data, end = read_events(stream)
    text = "".join(pieces).replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(data) == text
    assert end == "[DONE]"
    assert not any("[DONE]" in event or "[ERROR]" in event for event in data)


@given(pieces)
def test_a_failure_keeps_the_text_before_it_and_has_no_end(pieces):
    framing = sse.TextEvents()
    stream = b"".join(
        [*(framing.encode(p) for p in pieces), framing.fail(EngineFailure("model\nbroke"))]
    )
    *data, failure = read_events(stream)
    assert failure == "[ERROR] model broke"
    assert "[DONE]" not in data
    assert "".join(data) == "".join(pieces).replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize(
    ("accept", "asked"),
    [
        ("text/event-stream", True),
        ("application/json, Text/Event-Stream;q=0.9", True),
        ("*/*", False),
        ("text/*", False),
        ("text/event-streams", False),
        ("", False),
    ],
)
def test_only_the_type_itself_asks_for_it(accept, asked):
    scope = {"type": "http", "headers": [(b"accept", accept.encode())]}
    assert sse.asks_for(Request(scope), "text/event-stream") is asked
