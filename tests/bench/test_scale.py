"""The simulation of replicas: where queueing theory has a closed form, it says the same."""

import argparse
import math
from dataclasses import dataclass, replace
from itertools import takewhile
from random import Random
from statistics import fmean, pvariance

import pytest

from bench.scale import run as scale_run
from bench.scale.load import ANSWERS, PROMPTS, Load
from bench.scale.replica import RATIO, Machine, Replica, Request
from bench.scale.simulate import ROUTERS, SLACK, prefix_router, simulate

STEP_S = 0.025
LIKE_CLOCKWORK = Machine("as fast with all rows as with one", STEP_S * 1000, 0.0, 1.0)


@dataclass(frozen=True)
class Always:
    tokens: int

    def draw(self, _: Random) -> int:
        return self.tokens


@dataclass(frozen=True)
class Geometric:
    mean: float

    def draw(self, rng: Random) -> int:
        return 1 + int(math.log(1 - rng.random()) / math.log(1 - 1 / self.mean))


def poisson(rate: float, mean_tokens: float) -> Load:
    """Requests without prompts that come at random, one turn each."""
    return Load(rate, Always(0), Geometric(mean_tokens), turns=1.0, burst=0.0)


def erlang_c_wait_s(rate: float, service_s: float, servers: int) -> float:
    """The mean wait of M/M/c (A. K. Erlang, 1917)."""
    offered = rate * service_s
    last = offered**servers / math.factorial(servers) / (1 - offered / servers)
    waits = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)
    return waits * service_s / (servers - offered)


@pytest.mark.parametrize(("servers", "busy"), [(1, 0.5), (4, 0.7), (16, 0.9)])
def test_slots_wait_as_erlang_says(servers: int, busy: float) -> None:
    mean_tokens = 20.0
    service_s = mean_tokens * STEP_S
    rate = busy * servers / service_s
    found = simulate(
        poisson(rate, mean_tokens),
        [Replica(LIKE_CLOCKWORK, slots=servers, round_s=0.0)],
        ROUTERS["random"],
        seconds=10_000 / rate,
        warm_up_s=500 / rate,
        seed=1,
    )
    expected = erlang_c_wait_s(rate, service_s, servers)
    # a step is not interrupted: a request waits for the rest of one too
    assert expected * 0.85 < found.wait_s < expected * 1.15 + STEP_S, (found.wait_s, expected)


def test_random_routing_makes_queues_of_their_own() -> None:
    service_s, busy, num = 20 * STEP_S, 0.6, 5
    rate = busy * num / service_s
    found, pooled = (
        simulate(
            poisson(rate, 20.0),
            [Replica(LIKE_CLOCKWORK, slots=1, round_s=0.0) for _ in range(num)],
            ROUTERS[router],
            seconds=10_000 / rate,
            warm_up_s=500 / rate,
            seed=1,
        ).wait_s
        for router in ("random", "shortest")
    )
    expected = busy * service_s / (1 - busy)  # M/M/1, each with its part of the stream
    assert expected * 0.85 < found < expected * 1.15 + STEP_S
    assert erlang_c_wait_s(rate, service_s, num) < pooled < found / 2


def test_a_full_replica_decodes_what_its_steps_allow() -> None:
    machine = Machine("m", 20.0, 5.0, 1.0)
    replica = Replica(machine, slots=8)
    for number in range(8):
        replica.take(Request(number, 0, 400, 0, 0.0))
    now, ended = 0.0, []
    while (until := replica.begin(now)) is not None:
        now = until
        ended += replica.end(now)
    assert len(ended) == 8
    assert now == pytest.approx(400 * (0.020 + 7 * 0.005))
    assert replica.busy_s == pytest.approx(now)


def test_a_prompt_beside_streams_takes_as_long_as_they_do() -> None:
    machine = Machine("m", 20.0, 5.0, 1.0)
    replica = Replica(machine, slots=8)
    replica.take(Request(0, 0, 10_000, 0, 0.0))
    until = replica.begin(0.0)
    assert until is not None
    replica.end(until)
    prompt = Request(1, 600, 1, 0, until)
    replica.take(prompt)
    now = until
    while not prompt.first_s:
        until = replica.begin(now)
        assert until is not None
        now = until
        replica.end(now)
    step_s = RATIO * machine.step_s(2)
    share = (step_s - machine.step_s(1)) / step_s
    assert now - prompt.arrived_s == pytest.approx(0.600 / share, rel=0.05)


def test_a_kept_beginning_is_not_fed_again_until_others_need_the_room() -> None:
    replica = Replica(LIKE_CLOCKWORK, cache_tokens=1000)

    def cached(conversation: int, prompt: int, shared: int) -> int:
        request = Request(conversation, prompt, 1, shared, 0.0)
        replica.take(request)
        now = 0.0
        while (until := replica.begin(now)) is not None:
            now = until
            replica.end(now)
        assert now == pytest.approx((prompt - request.cached) * 0.001)
        return request.cached

    assert cached(1, 500, 0) == 0
    assert cached(1, 600, 500) == 500
    assert cached(2, 400, 0) == 0
    assert cached(1, 600, 600) == 599  # the last one is fed for its logits
    assert cached(3, 200, 0) == 0  # 2 was the least recent, and goes
    assert cached(2, 100, 100) == 0


def test_a_holder_keeps_a_conversation_until_it_is_too_busy() -> None:
    choose = prefix_router(Random(1))
    loads = [1, 0, 1]
    assert choose(7, loads) == 1
    loads[1] = SLACK + 1
    loads[0] = loads[2] = 1
    assert choose(7, loads) == 1
    loads[1] = SLACK + 2
    moved = choose(7, loads)
    assert moved != 1
    loads[1] = 0
    assert choose(7, loads) == moved


def test_lengths_have_the_mean_of_the_trace_that_they_are_fitted_to() -> None:
    rng = Random(1)
    for lengths, median in ((PROMPTS, 760.0), (ANSWERS, 151.3)):
        drawn = sorted(lengths.draw(rng) for _ in range(20_000))
        assert max(drawn) <= lengths.most
        assert drawn[10_000] == pytest.approx(median, rel=0.05)
    assert fmean(ANSWERS.draw(rng) for _ in range(20_000)) == pytest.approx(211, rel=0.05)


def test_minutes_vary_as_much_as_in_the_trace() -> None:
    rate, minutes = 5.53, 8000
    starts = replace(Load(rate), turns=1.0).starts(Random(1))
    counts = [0] * minutes
    for at in takewhile(lambda at: at < minutes * 60, starts):
        counts[int(at / 60)] += 1
    assert fmean(counts) == pytest.approx(rate * 60, rel=0.02)
    assert pvariance(counts) / fmean(counts) == pytest.approx(20.6, rel=0.15)


def test_routing_by_prefix_finds_what_other_routing_loses() -> None:
    found = {
        router: simulate(
            Load(1.5),
            [Replica(scale_run.AVX2) for _ in range(10)],
            ROUTERS[router],
            seconds=1500,
            warm_up_s=300,
            seed=1,
        )
        for router in ROUTERS
    }
    assert found["prefix"].cached > 0.8 * found["prefix"].reusable
    assert found["random"].cached < 0.25 * found["random"].reusable
    assert found["prefix"].first_s < found["shortest"].first_s < found["random"].first_s


def test_a_seed_gives_the_same_table_again() -> None:
    first, again = (list(scale_run.routing([1, 2], 0.1, 30, 5)) for _ in range(2))
    assert first == again
    assert first != list(scale_run.routing([1, 2], 0.1, 30, 6))


def test_an_unknown_machine_is_refused_by_name() -> None:
    parser = argparse.ArgumentParser()
    scale_run.add_arguments(parser)
    with pytest.raises(SystemExit, match="expected one of avx2, avx512, amx"):
        scale_run.run(parser.parse_args(["--price", "gpu=1"]))
