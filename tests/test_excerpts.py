"""Values in messages: as `repr` shows them, and never more than a line of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.excerpts import LIMIT, shown

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=LIMIT),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)


@given(JSON)
def test_it_is_the_beginning_of_repr(value: Any) -> None:
    whole = repr(value)
    wanted = whole if len(whole) <= LIMIT else whole[: LIMIT - 1] + "…"
    assert shown(value) == wanted


class Unseen(int):
    """A number that nobody may write out."""

    def __repr__(self) -> str:
        raise AssertionError("far behind what is shown")


@pytest.mark.parametrize(
    "value",
    [[*range(100), Unseen()], {**{str(i): i for i in range(100)}, "x": Unseen()}, ["a" * 9**7]],
)
def test_what_is_not_shown_is_not_written_out(value: Any) -> None:
    text = shown(value)
    assert len(text) == LIMIT
    assert text.endswith("…")
