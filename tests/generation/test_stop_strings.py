import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from app.generation.stop_strings import StopStrings

# two letters: stop strings overlap themselves and each other in most examples
texts = st.text("ab", max_size=40)
stop_lists = st.lists(st.text("ab", min_size=1, max_size=6), max_size=4)


def cut(text: str, borders: list[int]) -> list[str]:
    places = sorted({0, len(text), *(border % (len(text) + 1) for border in borders)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


def by_find(text: str, strings: list[str]) -> tuple[str, bool]:
    """The definition on the whole text: first to end, then the longest."""
    found = [(text.find(s) + len(s), text.find(s)) for s in strings if s in text]
    return (text[: min(found)[1]], True) if found else (text, False)


def by_pieces(pieces: list[str], strings: list[str]) -> tuple[str, bool]:
    matcher = StopStrings(strings)
    emitted = ""
    for piece in pieces:
        text, stopped = matcher.feed(piece)
        emitted += text
        if stopped:
            return emitted, True
    return emitted + matcher.flush(), False


@given(texts, stop_lists, st.lists(st.integers(0, 100), max_size=8))
@example("abab", ["abb", "ba"], [1, 2])
def test_pieces_stop_where_the_whole_text_does(text, strings, borders):
    assert by_pieces(cut(text, borders), strings) == by_find(text, strings)


@given(texts, stop_lists)
def test_only_what_may_become_a_stop_string_is_held_back(text, strings):
    matcher = StopStrings(strings)
    emitted, stopped = matcher.feed(text)
    if stopped:
        return
    held = text[len(emitted) :]
    prefixes = {s[:n] for s in strings for n in range(1, len(s))}
    longest = max((n for n in range(1, len(text) + 1) if text[-n:] in prefixes), default=0)
    assert len(held) == longest


def test_a_stop_string_across_pieces_is_found():
    matcher = StopStrings(["\n\nUser:"])
    assert matcher.feed("Hello.\n") == ("Hello.", False)
    assert matcher.feed("\nUs") == ("", False)
    assert matcher.feed("er: Hi") == ("", True)


def test_what_was_held_back_comes_when_it_was_no_stop_string():
    matcher = StopStrings(["<end>"])
    assert matcher.feed("a <en") == ("a ", False)
    assert matcher.feed("ter> ") == ("<enter> ", False)
    assert matcher.feed("<e") == ("", False)
    assert matcher.flush() == "<e"


def test_the_longest_of_those_complete_together_wins():
    assert StopStrings(["c", "abc", "bc"]).feed("xabc") == ("x", True)


def test_what_is_held_back_is_not_copied_again_with_every_piece():
    matcher = StopStrings(["a" * 1000 + "b"])
    for _ in range(1500):
        matcher.feed("aa")
    assert set(map(len, matcher._held)) == {2}, "pieces stay as they came"
    assert matcher.flush() == "a" * 1000


def test_pieces_without_text_leave_nothing_behind():
    matcher = StopStrings(["ab"])
    for _ in range(100):
        assert matcher.feed("") == ("", False)
    assert not matcher._held
