"""Clients take turns for slots, whatever each has queued."""

from hypothesis import given
from hypothesis import strategies as st

from app.contract.generation import BEHIND
from app.engine.engine import Engine
from app.engine.fair_queue import FairQueue
from app.engine.sequence import Sequence
from tests.engine.driving import FixedPace, request, run, step
from tests.engine.scripted import ScriptedDecoder

CLIENTS = ["", "ada", "bob", "eve"]
add = st.sampled_from(CLIENTS)
operations = st.lists(add | st.sampled_from(["take"]) | st.integers(0, 50), max_size=80)
"""A client queues a sequence · a slot becomes free · one of those that wait is aborted."""


def waiting(request_id: int, client: str) -> Sequence:
    return Sequence.start(request_id, request([1], client=client), vocab_size=101, now_s=0.0)


@given(operations)
def test_clients_take_turns_and_each_is_served_in_its_own_order(operations):
    queue, arrivals = FairQueue(), list[Sequence]()
    served_since: dict[str, dict[str, int]] = {}
    """Client that waits → client → slots that the other got since the first began to wait."""
    for number, operation in enumerate(operations):
        mine = [s for s in arrivals if s.request.client == operation]
        if operation == "take":
            if not arrivals:
                continue
            taken = queue.take()
            client = taken.request.client
            mine = [s for s in arrivals if s.request.client == client]
            assert taken is mine[0], "first come, first served within a client"
            arrivals.remove(taken)
            served_since.pop(client)
            for other, counts in served_since.items():
                counts[client] = counts.get(client, 0) + 1
                assert counts[client] <= 1, f"{client!r} was served twice while {other!r} waited"
            if mine[1:]:
                served_since[client] = {}
        elif isinstance(operation, int):
            if not arrivals:
                continue
            gone = arrivals.pop(operation % len(arrivals))
            queue.remove(gone)
            if all(s.request.client != gone.request.client for s in arrivals):
                served_since.pop(gone.request.client)
        else:
            arrivals.append(waiting(number, operation))
            queue.add(arrivals[-1])
            served_since.setdefault(operation, {})
        assert len(queue) == len(arrivals)
        assert {s.request_id for s in queue} == {s.request_id for s in arrivals}


def test_who_comes_behind_gets_the_slots_that_nobody_else_waits_for():
    queue, behind = FairQueue(), f"{BEHIND}ada"
    names = [behind, behind, "", "bob", f"{BEHIND}bob", "bob"]
    for number, client in enumerate(names):
        queue.add(waiting(number, client))
    served = [queue.take().request.client for _ in names]
    assert served == ["", "bob", "bob", behind, f"{BEHIND}bob", behind]


def test_everybody_is_served_while_one_client_floods():
    engine = Engine(ScriptedDecoder(slots=1), FixedPace(busy=3, idle=8))
    for i in range(50):
        engine.add(i, request([1], 2, client="flood"))
    step(engine)
    engine.add(100, request([2], 2, client="ada"))
    engine.add(101, request([3], 2, client="bob"))
    order = list(run(engine))
    # the first of the flood has the slot, and the flood's turn comes before two newcomers
    assert order[:4] == [0, 1, 100, 101]
    assert order[4:] == list(range(2, 50))


def test_requests_of_one_client_are_admitted_in_their_order():
    engine = Engine(ScriptedDecoder(slots=2), FixedPace(busy=3, idle=8))
    for i in range(9):
        engine.add(i, request([i], 1, client="ada"))
    assert list(run(engine)) == list(range(9))
