"""One replica: slots, steps and a prefix cache, as this server has them, with measured times.

A step decodes a token of every row and feeds prompts, the oldest first, for as long as decoding
alone would take (`app/engine/pacing.py`: at most twice the time); with no row to decode it feeds
prompts alone. Knows no router.
"""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

RATIO: Final = 2.0
"""`pacing.MAX_STEP_RATIO`."""
CACHE_TOKENS: Final = 11_650
"""What 512 MB keep of the default model, 46,080 bytes each: `LLMHOST_PREFIX_CACHE_MB`."""


@dataclass(frozen=True)
class Machine:
    """A replica's times, on two cores with the default model at 1,024 tokens of context."""

    name: str
    first_ms: float
    """A step of one row."""
    row_ms: float
    """What each further row adds: a line through 1 and 8 rows."""
    prompt_ms: float
    """A token of a prompt."""

    def step_s(self, rows: int) -> float:
        """Seconds of a step that decodes so many rows."""
        return (self.first_ms + self.row_ms * (rows - 1)) / 1000


@dataclass(slots=True)
class Request:
    """One turn of a conversation."""

    conversation: int
    prompt: int
    answer: int
    shared: int
    """Tokens at the prompt's beginning that an earlier turn had."""
    arrived_s: float
    admitted_s: float = 0.0
    first_s: float = 0.0
    to_feed: float = 0.0
    cached: int = 0
    left: int = 0


class Replica:
    """Requests wait, get a slot, feed their prompt, decode."""

    def __init__(
        self,
        machine: Machine,
        slots: int = 16,
        cache_tokens: int = CACHE_TOKENS,
        round_s: float = 0.2,
    ) -> None:
        """Start idle.

        Args:
            machine: its times.
            slots: requests at once.
            cache_tokens: size of the prefix cache.
            round_s: steps are taken together while nothing changes, for this long at most.
        """
        self.busy_s = 0.0
        self._machine = machine
        self._slots = slots
        self._round_s = round_s
        self._waiting: deque[Request] = deque()
        self._feeding: deque[Request] = deque()
        self._decoding: list[Request] = []
        self._kept: OrderedDict[int, int] = OrderedDict()
        self._room = cache_tokens
        self._steps, self._fed = 0, 0.0

    def take(self, request: Request) -> None:
        """Put a request into the queue."""
        self._waiting.append(request)

    def begin(self, now_s: float) -> float | None:
        """Admit what there is room for, and begin a round of steps.

        Returns:
            When the round ends; None: there is nothing to do.
        """
        while self._waiting and len(self._feeding) + len(self._decoding) < self._slots:
            self._admit(self._waiting.popleft(), now_s)
        rows, feeding = len(self._decoding), len(self._feeding)
        if not rows and not feeding:
            return None
        machine = self._machine
        token_s = machine.prompt_ms / 1000
        if not rows:
            self._steps, self._fed = 0, min(self._feeding[0].to_feed, self._round_s / token_s)
            lasts = self._fed * token_s
        else:
            alone = machine.step_s(rows)
            step_s = RATIO * machine.step_s(rows + feeding) if feeding else alone
            steps = min(*(row.left for row in self._decoding), int(self._round_s / step_s) or 1)
            self._fed = 0.0
            if feeding:
                per_step = (step_s - alone) / token_s
                steps = min(steps, math.ceil(self._feeding[0].to_feed / per_step))
                self._fed = min(self._feeding[0].to_feed, steps * per_step)
            self._steps = steps
            lasts = steps * alone + self._fed * token_s
        self.busy_s += lasts
        return now_s + lasts

    def end(self, now_s: float) -> list[Request]:
        """End the round: give the requests that ended with it."""
        for row in self._decoding:
            row.first_s = row.first_s or now_s
            row.left -= self._steps
        ended = [row for row in self._decoding if row.left <= 0]
        if ended:
            self._decoding = [row for row in self._decoding if row.left > 0]
        if self._fed:
            first = self._feeding[0]
            first.to_feed -= self._fed
            if first.to_feed < 1e-6:
                self._feeding.popleft()
                self._keep(first)
                first.first_s, first.left = now_s, first.answer - 1
                (self._decoding if first.left else ended).append(first)
        return ended

    def _admit(self, request: Request, now_s: float) -> None:
        request.admitted_s, request.left = now_s, request.answer
        kept = self._kept.get(request.conversation, 0)
        # the last token is fed in any case: its logits choose the first of the answer
        request.cached = min(request.shared, kept, max(0, request.prompt - 1))
        request.to_feed = float(request.prompt - request.cached)
        (self._feeding if request.to_feed else self._decoding).append(request)

    def _keep(self, request: Request) -> None:
        self._room += self._kept.pop(request.conversation, 0) - request.prompt
        self._kept[request.conversation] = request.prompt
        while self._room < 0:
            self._room += self._kept.popitem(last=False)[1]
