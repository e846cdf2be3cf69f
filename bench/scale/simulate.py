"""Run a load through a router to replicas, event by event, with a seed."""
# ruff: noqa: S311 # a simulation has no secrets

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from statistics import fmean, quantiles
from typing import Final

from bench.scale.load import Load
from bench.scale.replica import Replica, Request

SLACK: Final = 4
"""Requests that the holder of a prefix may have more than the least busy replica."""
Choose = Callable[[int, Sequence[int]], int]
"""Conversation and each replica's requests → the replica that gets the next turn."""


def random_router(rng: Random) -> Choose:
    """Choose any replica, as a service without a balancer's help does."""
    return lambda _, loads: rng.randrange(len(loads))


def shortest_router(rng: Random) -> Choose:
    """Choose one of the least busy."""

    def choose(_: int, loads: Sequence[int]) -> int:
        least = min(loads)
        return rng.choice([index for index, load in enumerate(loads) if load == least])

    return choose


def prefix_router(rng: Random) -> Choose:
    """Choose the holder of the conversation, unless it is too busy: then one of the least busy."""
    shortest, holders = shortest_router(rng), dict[int, int]()

    def choose(conversation: int, loads: Sequence[int]) -> int:
        holder = holders.get(conversation)
        if holder is None or loads[holder] > min(loads) + SLACK:
            holder = holders[conversation] = shortest(conversation, loads)
        return holder

    return choose


ROUTERS: Final = {"random": random_router, "shortest": shortest_router, "prefix": prefix_router}


@dataclass(frozen=True)
class Outcome:
    """What became of the requests that arrived after the warm-up.

    One that was not served by the end counts with the time until then, so beyond what the replicas
    can do all times are lower bounds.
    """

    requests: int
    wait_s: float
    """Mean time until a slot."""
    first_s: float
    """Mean time until the first token."""
    first_p95_s: float
    cached: float
    """Share of the prompts' tokens that the caches had."""
    reusable: float
    """Share that an earlier turn had: what one endless cache would give."""
    busy: float
    """Share of the replicas' time in which they computed."""
    tokens_per_s: float
    """Answered, of all replicas."""


def simulate(
    load: Load,
    replicas: Sequence[Replica],
    router: Callable[[Random], Choose],
    *,
    seconds: float,
    warm_up_s: float,
    seed: int,
) -> Outcome:
    """Run a load until requests no longer arrive.

    Args:
        load: who asks what.
        replicas: idle ones.
        router: chooses among them.
        seconds: until then conversations begin and go on.
        warm_up_s: what arrives before is not counted.
        seed: the same seed gives the same outcome, and the same conversations to every router.
    """
    lengths, pauses = Random(seed), Random(seed + 1)
    choose = router(Random(seed + 2))
    order = count()  # ties in time: first come, first served
    events: list[tuple[float, int, int, Request | None]] = []  # when, order, replica or -1, request
    starts, names = load.starts(Random(seed + 3)), count()
    turns: dict[int, list[tuple[int, int]]] = {}
    loads, running = [0] * len(replicas), [False] * len(replicas)
    came: list[Request] = []

    def arrive(conversation: int, now_s: float, shared: int) -> None:
        prompt, answer = turns[conversation].pop(0)
        request = Request(conversation, prompt, answer, shared, now_s)
        heapq.heappush(events, (now_s, next(order), -1, request))

    def start_one() -> None:
        name = next(names)
        turns[name] = load.conversation(lengths)
        arrive(name, next(starts), 0)

    def begin(index: int, now_s: float) -> None:
        until = replicas[index].begin(now_s)
        running[index] = until is not None
        if until is not None:
            heapq.heappush(events, (until, next(order), index, None))

    start_one()
    while events and events[0][0] < seconds:
        now, _, index, request = heapq.heappop(events)
        if request is not None:
            if not request.shared:
                start_one()
            came.append(request)
            index = choose(request.conversation, loads)
            loads[index] += 1
            replicas[index].take(request)
            if not running[index]:
                begin(index, now)
            continue
        for ended in replicas[index].end(now):
            loads[index] -= 1
            if turns[ended.conversation]:
                pause = pauses.expovariate(1 / load.think_s)
                arrive(ended.conversation, now + pause, ended.prompt)
            else:
                del turns[ended.conversation]
        begin(index, now)

    counted = [one for one in came if one.arrived_s >= warm_up_s]
    prompts = sum(one.prompt for one in counted)
    firsts = [(one.first_s or seconds) - one.arrived_s for one in counted]
    return Outcome(
        requests=len(counted),
        wait_s=fmean((one.admitted_s or seconds) - one.arrived_s for one in counted),
        first_s=fmean(firsts),
        first_p95_s=quantiles(firsts, n=20)[-1],
        cached=sum(one.cached for one in counted) / max(1, prompts),
        reusable=sum(one.shared for one in counted) / max(1, prompts),
        busy=sum(replica.busy_s for replica in replicas) / len(replicas) / seconds,
        tokens_per_s=sum(one.answer - one.left for one in counted if one.first_s)
        / (seconds - warm_up_s),
    )
