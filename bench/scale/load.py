"""Who asks what, and when: conversations with lengths as in a public trace.

The lengths are lognormal distributions fitted to the Azure LLM inference trace of 2023
(conversation; CC-BY, Patel et al., "Splitwise", ISCA 2024): 19,366 requests in an hour of
2023-11-11. They are not the trace itself, which also knows no conversations: how many turns one has
and how long its user thinks are assumptions. Knows no replica.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol


class Lengths(Protocol):
    """A distribution of numbers of tokens."""

    def draw(self, rng: Random) -> int:
        """Draw one."""


@dataclass(frozen=True)
class Lognormal:
    """Lognormal numbers of tokens, from 1 to a limit."""

    log_mean: float
    log_sd: float
    most: int

    def draw(self, rng: Random) -> int:
        """Draw one; beyond the limit, draw again."""
        while True:
            tokens = max(1, round(rng.lognormvariate(self.log_mean, self.log_sd)))
            if tokens <= self.most:
                return tokens


# Mean and deviation of the trace's logarithms. Its prompts have mean 1,155 and median 1,020, its
# answers 211 and 129; drawn are 1,127 and 748, 203 and 149, for neither is quite lognormal. The
# limits leave room for both in a context of 8,192.
PROMPTS: Final = Lognormal(6.633, 0.985, 7168)
ANSWERS: Final = Lognormal(5.019, 0.859, 1024)


@dataclass(frozen=True)
class Load:
    """A stream of conversations."""

    rate: float
    """Requests per second, in the long run."""
    prompts: Lengths = PROMPTS
    answers: Lengths = ANSWERS
    turns: float = 3.0
    """Mean number of a conversation's turns, geometric: assumed."""
    think_s: float = 30.0
    """Mean time from an answer's end to the next turn, exponential: assumed."""
    burst: float = 0.285
    """By how much of the mean the rate of new conversations is higher or lower, in turn. The
    trace's requests per minute have 21 times the variance of a Poisson process; with `dwell_s` this
    gives the same at the trace's rate."""
    dwell_s: float = 120.0
    """Mean time for which the rate stays high or low, exponential."""

    def starts(self, rng: Random) -> Iterator[float]:
        """Draw when conversations begin, in seconds."""
        now, sign = 0.0, 1.0
        switch = rng.expovariate(1 / self.dwell_s)
        while True:
            at = now + rng.expovariate(self.rate / self.turns * (1 + sign * self.burst))
            if at < switch:
                now = at
                yield now
            else:  # memoryless: draw anew from the switch on
                now, sign = switch, -sign
                switch += rng.expovariate(1 / self.dwell_s)

    def conversation(self, rng: Random) -> list[tuple[int, int]]:
        """Draw a conversation's prompts and answers, in tokens.

        Each prompt begins with the one before, so they come in order of their lengths.
        """
        num = 1
        if self.turns > 1:
            num += int(math.log(1 - rng.random()) / math.log(1 - 1 / self.turns))
        prompts = sorted(self.prompts.draw(rng) for _ in range(num))
        return [(prompt, self.answers.draw(rng)) for prompt in prompts]
