"""Places are counted by client, and nobody keeps another out for good."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract.generation import BEHIND
from app.engine.places import WANTING_S, Room
from app.errors import BatchTooLarge, Overloaded

CLIENTS = ["", "ada", "bob", "eve"]


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def room(slots: int = 2, max_waiting: int = 8) -> tuple[Room, Clock]:
    clock = Clock()
    return Room(slots, max_waiting, clock), clock


def run_all(room: Room, client: str, count: int) -> None:
    for _ in range(count):
        room.admitted(client)


def test_a_client_alone_may_have_every_place_and_no_more():
    places, _ = room(slots=2, max_waiting=8)
    with pytest.raises(BatchTooLarge, match="11 prompts, at most 10"):
        places.take("ada", 11)
    places.take("ada", 10)
    with pytest.raises(Overloaded, match="10 requests are running or waiting, the limit is 10"):
        places.take("ada", 1)
    places.waiting_ended("ada", 10)
    assert places.num_held == 0


def test_beside_another_that_waits_a_client_may_have_half():
    places, _ = room(slots=2, max_waiting=8)
    places.take("bob", 3)
    run_all(places, "bob", 2)
    places.take("ada", 4)
    with pytest.raises(
        Overloaded, match="4 requests of this client wait beside others', the limit is 4"
    ):
        places.take("ada", 1)
    places.take("bob", 3)


def test_who_comes_behind_has_free_slots_alone_and_is_in_nobodys_way():
    places, _ = room(slots=2, max_waiting=8)
    behind = f"{BEHIND}ada"
    places.take(behind, 1)
    places.take("bob", 1)
    with pytest.raises(Overloaded, match="before those of batches, the limit is 2"):
        places.take(behind, 1)
    places.take("bob", 8)
    places.waiting_ended("bob", 9)
    places.take(behind, 1)
    places.take("bob", 8)
    run_all(places, behind, 2)
    places.waiting_ended("bob", 8)
    places.running_ended()
    places.running_ended()
    assert places.num_held == 0
    places.take(behind, 3)  # more than ever run at once: when there is nobody else
    with pytest.raises(BatchTooLarge):
        places.take("bob", 11)


def test_others_that_run_or_get_a_slot_at_once_are_in_nobodys_way():
    places, _ = room(slots=2, max_waiting=8)
    places.take("bob", 2)
    places.take("ada", 8)
    places.waiting_ended("ada", 8)
    run_all(places, "bob", 2)
    places.take("ada", 8)


def test_a_free_slot_that_nobody_waits_for_comes_on_top_of_the_share():
    places, clock = room(slots=2, max_waiting=2)
    places.take("ada", 4)
    with pytest.raises(Overloaded):
        places.take("bob", 1)
    places.waiting_ended("ada", 4)
    places.take("ada", 2 + 1)
    assert clock.now_s == 50.0, "bob may still come back"
    with pytest.raises(Overloaded, match="3 requests of this client"):
        places.take("ada", 1)


def test_who_was_refused_gets_in_before_who_holds_all_gets_more():
    places, _ = room(slots=1, max_waiting=4)
    places.take("flood", 5)
    places.admitted("flood")
    with pytest.raises(Overloaded):
        places.take("ada", 1)
    places.running_ended()
    places.admitted("flood")
    with pytest.raises(Overloaded):
        places.take("flood", 1)
    places.take("ada", 1)
    places.waiting_ended("ada", 1)
    places.take("flood", 1)


def test_who_was_refused_and_does_not_come_back_keeps_nobody_down_for_long():
    places, clock = room(slots=1, max_waiting=4)
    places.take("flood", 5)
    for name in ("ada", "bob", "ada"):
        with pytest.raises(Overloaded):
            places.take(name, 1)
        clock.now_s += 1.0
    places.waiting_ended("flood", 2)
    places.admitted("flood")
    clock.now_s += WANTING_S - 2.5
    with pytest.raises(Overloaded):
        places.take("flood", 1)
    clock.now_s += 2.0
    places.take("flood", 1)


@given(
    slots=st.integers(1, 4),
    max_waiting=st.integers(0, 9),
    operations=st.lists(
        st.tuples(
            st.sampled_from(["take", "admit", "end waiting", "end running", "time"]),
            st.sampled_from(CLIENTS),
            st.integers(1, 6),
        ),
        max_size=80,
    ),
)
def test_nobody_gets_more_than_a_share_while_another_waits(slots, max_waiting, operations):
    places, clock = room(slots, max_waiting)
    waiting, running = Counter[str](), list[str]()
    refused: dict[str, float] = {}
    for what, client, count in operations:
        others = waiting.total() - waiting[client]
        free = slots - len(running)
        match what:
            case "take":
                try:
                    places.take(client, count)
                except BatchTooLarge:
                    assert count > slots + max_waiting
                except Overloaded:
                    full = waiting.total() + len(running) + count > slots + max_waiting
                    wanted = any(
                        until_s > clock.now_s for who, until_s in refused.items() if who != client
                    )
                    assert full or others > free or wanted, "there was room and nobody to keep it"
                    refused[client] = clock.now_s + WANTING_S
                else:
                    refused.pop(client, None)
                    waiting[client] += count
                    if others > free:
                        assert waiting[client] <= (max_waiting + 1) // 2
            case "admit" if waiting[client] and free:
                places.admitted(client)
                waiting[client] -= 1
                running.append(client)
            case "end waiting" if waiting[client]:
                places.waiting_ended(client, 1)
                waiting[client] -= 1
            case "end running" if running:
                places.running_ended()
                running.pop()
            case "time":
                clock.now_s += count
        assert places.num_held == waiting.total() + len(running) <= slots + max_waiting
    # whoever is left alone may have all of it, once nobody is expected back
    for client in CLIENTS:
        places.waiting_ended(client, waiting[client])
    clock.now_s += WANTING_S
    places.take("ada", slots + max_waiting - len(running))
