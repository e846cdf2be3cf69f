"""Constraints: what they leave of a row, and what becomes of sequences that have one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract.sampling import FinishReason, SamplingParams
from app.engine.constraint import accept, restrict
from app.engine.engine import Engine
from app.errors import EngineFailure, InvalidParameter
from tests.engine.driving import FixedPace, request, run, tokens
from tests.engine.scripted import ScriptedConstraint, ScriptedDecoder, expected_tokens

V = ScriptedDecoder().vocab_size
SETS = ({3, 40}, {64, 100}, {31, 32, 33}, {0, 95, 96})
"""On both sides of the words' borders."""


class Panic(BaseException):
    """As an extension written in Rust raises it."""


class Broken(ScriptedConstraint):
    """Raises at one of its three doors, the second time."""

    def __init__(self, door: str, error: BaseException) -> None:
        super().__init__(*SETS)
        self._door, self._error = door, error

    def fill_mask(self, mask) -> None:
        super().fill_mask(mask)
        self._fail("fill_mask", 1)

    def accept(self, token_id: int) -> None:
        super().accept(token_id)
        self._fail("accept", 2)

    @property
    def ended(self) -> bool:
        self._fail("ended", 2)
        return super().ended

    def _fail(self, door: str, num_accepted: int) -> None:
        if door == self._door and len(self.accepted) == num_accepted:
            raise self._error


def engine_of(slots: int = 4) -> Engine:
    return Engine(ScriptedDecoder(slots), FixedPace(busy=3, idle=8))


@given(vocab_size=st.integers(1, 130), data=st.data())
def test_exactly_the_allowed_tokens_keep_their_logits(vocab_size, data):
    allowed = data.draw(st.sets(st.integers(0, vocab_size - 1), min_size=1))
    logits = np.arange(vocab_size, dtype=np.float32) - 50
    row = logits.copy()
    # whatever the buffer held before
    mask = np.full(-(-vocab_size // 32), -1, np.int32)
    restrict(row, ScriptedConstraint(allowed), mask)
    wanted = [x if i in allowed else -np.inf for i, x in enumerate(logits)]
    assert row.tolist() == wanted


def test_a_constraint_that_allows_nothing_is_a_failure_even_if_padding_bits_are_set():
    row = np.zeros(20, np.float32)
    with pytest.raises(EngineFailure, match="allows no token"):
        restrict(row, ScriptedConstraint({20, 31}), np.zeros(1, np.int32))


def test_what_a_constraint_raises_keeps_its_words_and_what_nobody_foresaw_is_logged(caplog):
    with pytest.raises(EngineFailure, match="token 7 is refused"):
        accept(ScriptedConstraint({1}), 7)
    broken = Broken("accept", Panic("index out of bounds"))
    assert not accept(broken, 3)
    assert caplog.text == ""
    with pytest.raises(EngineFailure, match=r"the constraint failed: Panic\('index out of bounds"):
        accept(broken, 64)
    assert "Traceback" in caplog.text, "a bug in a library must be found"


@pytest.mark.parametrize("door", ["fill_mask", "accept"])
def test_a_fault_of_the_request_itself_reaches_its_client_as_such(door):
    engine = engine_of()
    costly = InvalidParameter("response_format", {}, "a schema that can be followed")
    engine.add(0, request([5, 6], 50, constraint=Broken(door, costly)))
    engine.add(1, request([5, 6], 9))
    events = run(engine)
    assert events[0][-1].error is costly
    assert tokens(events[1]) == expected_tokens([5, 6], 9, V), "a neighbour is left alone"


@pytest.mark.parametrize("sampling", [SamplingParams(temperature=0.0), SamplingParams(seed=1)])
def test_only_allowed_tokens_come_each_is_accepted_and_the_end_is_stop(sampling):
    engine = engine_of()
    constraint = ScriptedConstraint(*SETS)
    engine.add(0, request([5, 6], 50, sampling=sampling, constraint=constraint))
    engine.add(1, request([5, 6], 9))
    events = run(engine)
    got = tokens(events[0])
    assert len(got) == len(SETS)
    assert all(token in allowed for token, allowed in zip(got, SETS, strict=True))
    assert got != expected_tokens([5, 6], 4, V), "free tokens must differ or this proves nothing"
    assert constraint.accepted == got
    assert len(set(constraint.masks)) == 1, "one buffer serves all steps"
    # `stop` stands alone: beside a token it would say that the token is a stop id
    assert [event.finish_reason for event in events[0]] == [None] * 4 + [FinishReason.STOP]
    assert events[0][-1].token_id is None
    assert tokens(events[1]) == expected_tokens([5, 6], 9, V), "a neighbour is left alone"


def test_a_stop_id_that_the_constraint_allows_ends_as_it_does_without_one():
    engine = engine_of()
    constraint = ScriptedConstraint({3}, {9}, {4})
    engine.add(0, request([5], 50, stop_ids=frozenset({9}), constraint=constraint))
    events = run(engine)[0]
    assert tokens(events) == [3, 9]
    assert constraint.accepted == [3, 9]
    assert [event.finish_reason for event in events] == [None, FinishReason.STOP]


def test_a_stop_id_that_the_constraint_forbids_does_not_come():
    first = expected_tokens([5], 1, V)[0]
    engine = engine_of()
    constraint = ScriptedConstraint(set(range(V)) - {first})
    engine.add(0, request([5], 50, stop_ids=frozenset({first}), constraint=constraint))
    assert tokens(run(engine)[0]) != [first]


def test_min_tokens_holds_stop_ids_back_until_the_constraint_allows_no_other():
    engine = engine_of()
    # the stop id 2 is allowed throughout, beside another token in the first two places
    constraint = ScriptedConstraint({2, 7}, {2, 8}, {2}, {9})
    engine.add(0, request([5], 9, stop_ids=frozenset({2}), min_tokens=6, constraint=constraint))
    assert tokens(run(engine)[0]) == [7, 8, 2]


def test_the_last_allowed_token_is_stop_even_if_it_is_also_the_last_that_was_asked_for():
    engine = engine_of()
    engine.add(0, request([5], 2, constraint=ScriptedConstraint({3}, {4})))
    engine.add(1, request([5], 2, constraint=ScriptedConstraint({3}, {4}, {5})))
    events = run(engine)
    assert tokens(events[0]) == tokens(events[1]) == [3, 4]
    assert events[0][-1].finish_reason is FinishReason.STOP
    assert events[1][-1].finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize("error", [ValueError("bug"), EngineFailure("bug"), Panic("bug")])
@pytest.mark.parametrize("door", ["fill_mask", "accept", "ended"])
def test_a_constraint_that_raises_ends_its_own_sequence_and_no_other(door, error):
    engine = engine_of(slots=3)
    engine.add(0, request([5], 6))
    engine.add(1, request([5], 6, constraint=Broken(door, error)))
    engine.add(2, request([6], 6, constraint=ScriptedConstraint(*SETS)))
    events = run(engine)
    assert len(tokens(events[1])) == 1
    assert events[1][-1].finish_reason is FinishReason.ERROR
    assert isinstance(events[1][-1].error, EngineFailure)
    assert "bug" in str(events[1][-1].error)
    assert tokens(events[0]) == expected_tokens([5], 6, V)
    assert len(tokens(events[2])) == len(SETS)
    assert engine.idle
    engine.add(3, request([9], 3))
    assert tokens(run(engine)[3]) == expected_tokens([9], 3, V)
