import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import errors
from app.dialects.locallab.wire import SPACE, PlainChat, PlainText, refuse
from app.errors import EngineFailure
from tests.dialects.readers import read_events, stream_chat, stream_generate

parts = [
    *("\n", "\r", " ", "  ", "\t", "\u2028", "\xa0", "a", "é😀", "\\n"),
    *("5", "true", "null", "NaN", '"x"', "[1]", "{", "}", "[", "Error:", "data: "),
    *("[DONE]", "DONE]", "[ERROR] x", "E", "rror:"),
]
pieces = st.lists(st.lists(st.sampled_from(parts), min_size=1, max_size=3).map("".join), max_size=8)


def escaped(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def framed(framing: PlainText | PlainChat, pieces: list[str]) -> bytes:
    return b"".join([*(framing.encode(piece) for piece in pieces), framing.finish()])


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_space_is_what_strip_strips_except_line_ends():
    every = "".join(map(chr, range(0x110000)))
    assert set(SPACE) | {"\r", "\n"} == {c for c in every if c.isspace()}


@given(pieces)
@example(["[DO", "NE]"])
@example([" ", "[DONE]", "Error: none"])
def test_the_original_client_gets_the_text_but_for_space_at_its_end(pieces):
    yielded, ended = stream_generate(framed(PlainText(), pieces))
    assert ended
    assert "".join(yielded) == escaped("".join(pieces)).rstrip(SPACE)


@given(pieces)
@example(["4", "2", " is it"])
def test_no_piece_but_the_last_is_json_by_itself(pieces):
    yielded, _ = stream_generate(framed(PlainText(), pieces))
    # at the end there is nothing left to merge with
    assert not any(is_json(piece) for piece in yielded[:-1])


@given(pieces)
def test_stream_chat_gets_every_character(pieces):
    yielded, ended = stream_chat(framed(PlainChat(), pieces))
    assert ended
    assert "".join(chunk["content"] for chunk in yielded) == "".join(pieces)
    assert all(chunk["choices"] == [{"delta": {"content": chunk["content"]}}] for chunk in yielded)


@pytest.mark.parametrize("framing", [PlainText, PlainChat])
@given(pieces=pieces)
def test_a_reader_of_events_gets_the_same_lines(framing, pieces):
    *data, end = read_events(framed(framing(), pieces))
    assert "".join(data) == escaped("".join(pieces)).rstrip(SPACE)
    assert end == "[DONE]"
    assert not any("[DONE]" in line for line in data)


def test_a_token_is_sent_as_soon_as_it_can_be():
    framing = PlainText()
    assert framing.encode("Hello") == b"data: Hello\n\n"
    assert framing.encode(" ") == b""
    assert framing.encode("wide ") == b"data:  wide\n\n"
    assert framing.encode("5") == b""
    assert framing.encode("\n") == b"data:  5\\n\n\n"
    assert framing.finish() == b"data: [DONE]\n\n"


def test_a_chat_piece_is_an_event_and_a_line_of_json():
    framing = PlainChat()
    assert framing.encode("a\nb") == (
        b'data: a\\nb\n{"content":"a\\nb","choices":[{"delta":{"content":"a\\nb"}}]}\n\n'
    )
    assert framing.finish() == b'data: [DONE]\n"[DONE]"\n\n'


def test_a_failure_is_marked_and_is_no_end():
    framing = PlainText()
    stream = framing.encode("a 5 ") + framing.fail(EngineFailure("model\nbroke"))
    assert stream == b"data: a 5\n\ndata: [ERROR] model broke\n\n"
    assert stream_generate(stream) == (["a 5", "[ERROR] model broke"], False)


def test_a_failure_of_a_chat_is_an_error_for_its_client_too():
    framing = PlainChat()
    stream = framing.encode("5") + framing.fail(EngineFailure("model broke"))
    yielded, ended = stream_chat(stream)
    assert [chunk.get("content") for chunk in yielded] == ["5", None]
    assert yielded[-1] == {"error": "model broke"}
    assert not ended
    assert read_events(stream) == ["5", "[ERROR] model broke"]


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (errors.InvalidParameter("top_p", 2, "number <= 1"), 400, {}),
        (errors.RequestError("no"), 400, {}),
        (errors.NoModelLoaded(), 400, {}),
        (errors.UnknownModel("a/b"), 404, {}),
        (errors.ContextOverflow(9120, 8192), 413, {}),
        (errors.Overloaded(80, 80), 429, {"Retry-After": "1"}),
        (errors.RateLimited("slow down", 7), 429, {"Retry-After": "7"}),
        (errors.ShuttingDown(), 503, {"Retry-After": "5"}),
        (errors.EngineFailure("broke"), 500, {}),
        (errors.ModelBroken("broke"), 500, {}),
        (errors.NotAuthenticated(), 401, {"WWW-Authenticate": "Bearer"}),
        (errors.Forbidden("admins only"), 403, {}),
    ],
)
def test_each_error_has_its_status_and_its_message(error, status, headers):
    answer = refuse(error)
    assert (answer.status_code, answer.headers) == (status, headers)
    assert answer.content.detail == error.message
