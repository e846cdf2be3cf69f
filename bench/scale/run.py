"""`python -m bench scale`: replicas by the hundreds on paper, from measured times of one.

Says how long first tokens take with and without routing by prefix, which shared part is full first,
and what a million tokens cost. `--write` puts the tables where the manual reads them.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.scale.load import Load
from bench.scale.replica import CACHE_TOKENS, Machine, Replica
from bench.scale.simulate import ROUTERS, SLACK, Outcome, simulate

OUT: Final = Path(__file__).parents[1] / "scale.md"
AVX2: Final = Machine("AVX2", 18.6, 4.87, 3.30)
MACHINES: Final = {
    # bench/compare.md, "ours int8": 1 and 8 × 1024; prompts of 512 and 2,048, their mean
    "avx2": AVX2,
    # bench/compare-avx512.md, "ours", an earlier version: 1 and 8 × 1024; a prompt of 512
    "avx512": Machine("AVX-512 VNNI", 18.5, 4.49, 1.23),
    # bench/LOG.md, 2026-11-26, `w8a8`: 1 and 8 × 1,024; prompts of 512 and 2,048, their mean
    "amx": Machine("AMX", 11.6, 3.40, 0.57),
}
"""Two cores each."""
DOLLARS_PER_HOUR: Final = {"avx2": 0.08, "avx512": 0.09, "amx": 0.10}
"""What two cores with 8 GB are assumed to cost (2026-11-27). No offer is quoted: `--price` takes
yours."""
TARGET_S: Final = 20.0
"""A machine's load is fitted to this: 95 % of first tokens come sooner. With AVX2 the 95th
percentile of prompts takes 12 s alone."""


class Shared(NamedTuple):
    """A part that all replicas share, and what a request costs it."""

    name: str
    does: str
    core_ms: float
    """Of one core, assumed."""


SHARED: Final = (
    Shared("database", "one read: whose token it is", 0.3),
    Shared("database", "two reads and one commit: a response that is kept", 1.5),
    Shared("store", "five commands: a request with a limit", 0.15),
    Shared("router", "a request and a stream of 200 pieces, in Python", 15.0),
)
CONNECTIONS: Final = 15
"""Of one replica to the database at most: `LLMHOST_DATABASE_CONNECTIONS`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m bench scale`."""
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 3, 10, 30, 100, 300, 1000])
    parser.add_argument("--rate", type=float, default=0.15, help="requests/s for each replica")
    parser.add_argument("--seconds", type=float, default=900.0, help="simulated, with 30 replicas")
    parser.add_argument("--price", nargs="*", default=[], metavar="MACHINE=DOLLARS_PER_HOUR")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help=f"into bench/{OUT.name} too")


def run(args: argparse.Namespace) -> None:
    """Print the tables."""
    prices = dict(DOLLARS_PER_HOUR)
    for given in args.price:
        name, _, dollars = given.partition("=")
        if name not in MACHINES:
            raise SystemExit(f"--price {given}: expected one of {', '.join(MACHINES)}")
        prices[name] = float(dollars)
    tables = (
        routing(args.replicas, args.rate, args.seconds, args.seed),
        bottlenecks(args.rate),
        costs(prices, args.seed),
    )
    text = "\n\n".join("\n".join(table) for table in tables) + "\n"
    print(text)
    if args.write:
        OUT.write_text(text)


def outcome(
    load: Load, replicas: Sequence[Replica], router: str, *, seconds: float, seed: int
) -> Outcome:
    """Simulate idle replicas; few of them for longer, so that there are as many requests."""
    lasts = seconds * max(1.0, 30 / len(replicas))
    return simulate(load, replicas, ROUTERS[router], seconds=lasts, warm_up_s=lasts / 3, seed=seed)


def routing(nums: Sequence[int], rate: float, seconds: float, seed: int) -> Iterator[str]:
    """Compare routers over numbers of replicas."""
    yield "| replicas | requests/s | router | cached | computing | first token, mean | 95 % |"
    yield "|---|---|---|---|---|---|---|"
    for num in nums:
        load = Load(rate * num)
        for router in ROUTERS:
            replicas = [Replica(AVX2) for _ in range(num)]
            found = outcome(load, replicas, router, seconds=seconds, seed=seed)
            yield (
                f"| {num:,} | {num * rate:.4g} | {router} "
                f"| {found.cached:.0%} of {found.reusable:.0%} | {found.busy:.0%} "
                f"| {found.first_s:.1f} s | {found.first_p95_s:.1f} s |"
            )
    yield ""
    yield (
        "Two cores with AVX2 each. Cached: of the prompts' tokens, what caches had of what an "
        "earlier turn had. Computing: of the replicas' time. `prefix` goes elsewhere when the "
        f"holder has over {SLACK} requests more than the least busy."
    )


def bottlenecks(rate: float) -> Iterator[str]:
    """Say how many replicas fill one core of what they share."""
    yield "| shared | for a request | ms of a core, assumed | requests/s of a core | replicas |"
    yield "|---|---|---|---|---|"
    for part in SHARED:
        most_requests = 1000 / part.core_ms
        yield (
            f"| {part.name} | {part.does} | {part.core_ms:g} | {most_requests:,.0f} "
            f"| {most_requests / rate:,.0f} |"
        )
    yield f"| database | a connection: {CONNECTIONS} of each replica | | | {100 // CONNECTIONS} |"
    yield ""
    yield (
        f"Replicas with {rate:g} requests/s each that fill one core; the last row: that take 100 "
        "connections, PostgreSQL's default."
    )


def costs(prices: dict[str, float], seed: int) -> Iterator[str]:
    """Say what a million tokens cost where first tokens come in time, with 10 replicas."""
    yield "| two cores | $/hour, assumed | router, cache | cached | tokens/s | $ per million |"
    yield "|---|---|---|---|---|---|"
    for name in MACHINES:
        yield from costs_of(name, prices[name], seed)
    yield ""
    yield (
        "Each of ten replicas, at the highest load at which 95 % of first tokens come within "
        f"{TARGET_S:.0f} s. Tokens are those of answers; reading their prompts is in the price."
    )


def costs_of(name: str, price: float, seed: int) -> Iterator[str]:
    """Say it of one machine: without prefix routing, with it, and with more room for prefixes."""
    for router, megabytes in (("shortest", 512), ("prefix", 512), ("prefix", 2048)):
        found = most(MACHINES[name], router, CACHE_TOKENS * megabytes // 512, seed)
        tokens = found.tokens_per_s / 10
        yield (
            f"| {MACHINES[name].name} | {price:.2f} | {router}, {megabytes:,} MB "
            f"| {found.cached:.0%} | {tokens:.0f} | {price / 3600 / tokens * 1e6:.2f} |"
        )


def most(machine: Machine, router: str, cache_tokens: int, seed: int) -> Outcome:
    """Find the highest load at which first tokens come in time."""
    low, high, best = 0.0, 1.2, None
    while high - low > 0.01 or best is None:
        rate = (low + high) / 2
        replicas = [Replica(machine, cache_tokens=cache_tokens) for _ in range(10)]
        found = outcome(Load(rate * 10), replicas, router, seconds=1000, seed=seed)
        if found.first_p95_s <= TARGET_S:
            low, best = rate, found
        else:
            high = rate
    return best
