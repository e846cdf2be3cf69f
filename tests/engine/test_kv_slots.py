"""Slots are handed out lowest first, and none is ever lost or held twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.kv_slots import KvSlots


@given(count=st.integers(1, 8), choices=st.lists(st.integers(0, 100)))
def test_slots_are_neither_lost_nor_shared(count, choices):
    slots, owned = KvSlots(count), []
    for choice in choices:
        if choice % 2 and slots.num_free:
            free = set(range(count)) - set(owned)
            assert slots.lowest_free == min(free)
            owned.append(slots.take())
            assert owned[-1] == min(free)
        elif owned:
            slots.release(owned.pop(choice % len(owned)))
        slots.check(owned)
        assert slots.num_free == count - len(owned)


def test_check_notices_a_slot_with_two_owners_and_a_lost_one():
    slots = KvSlots(3)
    taken = slots.take()
    for owned in ([taken, taken], [], [taken, 2]):
        with pytest.raises(AssertionError):
            slots.check(owned)


def test_a_slot_cannot_be_given_back_twice():
    slots = KvSlots(2)
    slots.release(slots.take())
    with pytest.raises(KeyError):
        slots.release(0)
