"""What a request rules out, against a plain reading of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.engine import Engine
from app.engine.sampler import sample
from app.engine.sequence import EngineRequest, Sequence
from app.engine.vetoes import Vetoes
from app.errors import EngineFailure
from tests.engine.driving import GREEDY, request, run, tokens
from tests.engine.scripted import ScriptedConstraint, ScriptedDecoder, expected_tokens

V = ScriptedDecoder().vocab_size
PROMPT = [5, 90, 3, 3, 17]
# few tokens, so that words overlap and occur
token = st.integers(0, 3)
words = st.lists(st.lists(token, min_size=1, max_size=4), max_size=8)


def plainly(words: list[list[int]], generated: list[int]) -> set[int]:
    """Every token with which what was generated would end in one of the words."""
    return {
        token_id
        for token_id in range(4)
        for word in words
        if [*generated, token_id][-len(word) :] == word
    }


@given(words=words, prompt=st.lists(token, min_size=1), generated=st.lists(token, max_size=9))
def test_tokens_that_would_complete_a_word(words, prompt, generated):
    found = Vetoes(words=words).completing([*prompt, *generated], len(generated))
    assert set(found) == plainly(words, generated)


def choose(row: list[float], generated: list[int] = [], **fields) -> int:  # noqa: B006 # only read
    asked = EngineRequest(prompt_ids=[1], max_tokens=9, sampling=GREEDY, **fields)
    sequence = Sequence.start(0, asked, len(row), now_s=0.0)
    for token_id in generated:
        sequence.append(token_id)
    return sample(np.array(row, np.float32), sequence)


def test_the_likeliest_that_is_not_ruled_out_is_chosen():
    row = [4.0, 3.0, 2.0, 1.0]
    assert choose(row) == 0
    assert choose(row, vetoes=Vetoes(words=[[0]])) == 1
    assert choose(row, vetoes=Vetoes([2, 3])) == 2
    assert choose(row, vetoes=Vetoes([3, 2, 2], [[2]])) == 3
    pair = Vetoes(words=[[1, 0]])
    assert [choose(row, before, vetoes=pair) for before in ([], [0], [1], [0, 1])] == [0, 0, 1, 1]


def test_what_leaves_nothing_rules_nothing_out():
    row = [4.0, 3.0, 2.0]
    assert choose(row, vetoes=Vetoes(words=[[0], [1], [2]])) == 0
    only_2 = ScriptedConstraint([2])
    assert choose(row, vetoes=Vetoes([0, 1]), constraint=only_2) == 2
    with pytest.raises(EngineFailure, match="allows no token"):
        choose(row, vetoes=Vetoes([0]), constraint=ScriptedConstraint([]))


def test_a_word_is_not_generated_and_everything_else_is_as_before():
    free = expected_tokens(PROMPT, 8, V)
    engine = Engine(ScriptedDecoder())
    word = free[2:5]
    engine.add(0, request(PROMPT, 8, vetoes=Vetoes(words=[word])))
    engine.add(1, request(PROMPT, 8))
    found = run(engine)
    held, beside = tokens(found[0]), tokens(found[1])
    assert beside == free, "nobody else is concerned"
    assert held[:4] == free[:4]
    assert held[4] != free[4]
    assert not any(held[i : i + 3] == word for i in range(6))


def test_a_word_may_begin_in_the_prompt():
    first = expected_tokens(PROMPT, 1, V)[0]
    engine = Engine(ScriptedDecoder())
    engine.add(0, request(PROMPT, 1, vetoes=Vetoes(words=[[PROMPT[-1], first]])))
    assert tokens(run(engine)[0]) == [first]


def test_a_token_beyond_the_vocabulary_is_refused():
    engine = Engine(ScriptedDecoder())
    for vetoes in (Vetoes([V]), Vetoes(words=[[1, V]])):
        with pytest.raises(EngineFailure, match=f"vetoes has token {V}"):
            engine.add(0, request(PROMPT, 1, vetoes=vetoes))
