"""Bad words and allowed tokens on their way to the engine."""

import pytest

from app.contract.generation import NOBODY
from app.errors import InvalidParameter
from app.generation.prepare import prepare
from app.generation.ruled_out import MOST_OF_A_WORD, SharedVetoes
from tests.fakes import BYTES, EOS_ID, FakeEngine, FakeModel, byte_ids
from tests.generation.asking import asks, says

MODEL = FakeModel(FakeEngine(()))


def prepared(**fields):
    return prepare(MODEL, asks(**fields), NOBODY, SharedVetoes()).engine


def test_a_word_is_ruled_out_at_its_last_token_in_front_and_after_a_space():
    vetoes = prepared(bad_words=("cat", " dog")).vetoes
    for text, last in (("ca", "t"), (" ca", "t"), ("do", "g"), ("x do", "g")):
        assert set(vetoes.completing(byte_ids(text), len(text))) == set(byte_ids(last)), text
    assert vetoes.completing(byte_ids("c"), 1) == []
    assert prepared().vetoes is None


def test_choices_of_one_request_share_what_they_rule_out():
    shared, asked = SharedVetoes(), asks(bad_words=("cat",), allowed_ids=(1, 2))
    first, second = (prepare(MODEL, asked, NOBODY, shared).engine.vetoes for _ in range(2))
    assert first is second
    assert first.allowed.tolist() == [1, 2]
    assert prepare(MODEL, asks(), NOBODY, shared).engine.vetoes is None


@pytest.mark.parametrize(
    ("fields", "field", "limit"),
    [
        ({"bad_words": ("a", "b" * (MOST_OF_A_WORD + 1))}, "bad_words[1]", "1 to 32"),
        ({"bad_words": ("b" * MOST_OF_A_WORD,)}, "bad_words[0]", "1 to 32"),  # with a space
        ({"allowed_ids": (1, 258)}, "allowed_token_ids", "258"),
        ({"allowed_ids": tuple(byte_ids("a")), "bad_words": ("a",)}, "allowed_token_ids", "bad_"),
    ],
)
def test_what_cannot_be_ruled_out(fields, field, limit):
    with pytest.raises(InvalidParameter, match=limit) as refused:
        prepared(**fields)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("most", "max_tokens", "kept"),
    [(3, 100, "lo!"), (99, 100, "Hello!"), (-1, 100, "Hello!"), (1, None, "!")],
)
def test_a_prompt_is_cut_at_its_front(most, max_tokens, kept):
    asked = prepared(prompt="Hello!", truncate_prompt=most, max_tokens=max_tokens)
    assert asked.prompt_ids == byte_ids(kept)


@pytest.mark.parametrize(("max_tokens", "left"), [(None, 4095), (96, 4000), (9999, 1)])
def test_a_prompt_that_is_too_long_is_cut_so_that_an_answer_fits(max_tokens, left):
    text = "abc" * 3000
    asked = prepared(prompt=text, truncate_prompt=-1, max_tokens=max_tokens)
    assert asked.prompt_ids == byte_ids(text)[-left:]
    assert asked.max_tokens == 4096 - left


def test_a_conversation_is_cut_after_it_was_written_out():
    whole = prepared(prompt=None, messages=says("Hi")).prompt_ids
    cut = prepared(prompt=None, messages=says("Hi"), truncate_prompt=5).prompt_ids
    assert cut == whole[-5:]
    assert BYTES.decode(cut, skip_special_tokens=False) == "tant\n"
    assert EOS_ID in whole
