"""Room for requests: who holds how much of it, and who may have more.

A request holds a place from before it is prepared until it ends. There are as many places as
slots and waiting places together. Knows no engine: it is told what happens.
"""

from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from app.contract.generation import BEHIND
from app.engine.sequence import EngineRequest
from app.engine.stream import TokenStream
from app.errors import BatchTooLarge, Overloaded

WANTING_S: Final = 10.0
"""Seconds for which a client that was refused counts as wanting a place. It is told to come back
after one second; who doesn't within this time has given up and must not keep others down."""

_AHEAD: Final = "requests are running or waiting before those of batches"


class Places:
    """Room for some requests; a context manager, at whose exit unused places go back."""

    def __init__(
        self,
        count: int,
        submit: Callable[[EngineRequest], TokenStream],
        give_back: Callable[[int], None],
    ) -> None:
        self._left = count
        self._submit = submit
        self._give_back = give_back

    def submit(self, request: EngineRequest) -> TokenStream:
        """Hand a request to the engine in one of the places.

        Raises:
            EngineFailure, ShuttingDown: the engine has stopped meanwhile.
        """
        assert self._left > 0, "every reserved place is used"
        stream = self._submit(request)
        self._left -= 1
        self._give_back(1)
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back(self._left)
        self._left = 0


class Room:
    """Counts the places that clients hold, and refuses who would have more than a fair share.

    A request without a slot waits, also while it is prepared. As long as nobody else waits for a
    slot that isn't free, or was refused a place and may come back, a client may have every
    waiting place. Else it may have half of them, rounded up, beside the free slots that the
    others leave. What somebody holds is never taken away: a client with more than its share gets
    nothing new until it has less.

    A client who comes behind gets places only while slots are free for its requests, and is not
    counted where others' shares are.
    """

    def __init__(self, slots: int, max_waiting: int, clock_s: Callable[[], float]) -> None:
        self.num_places = slots + max_waiting
        self._slots = slots
        self._share = (max_waiting + 1) // 2
        self._clock_s = clock_s
        self._waiting: Counter[str] = Counter()
        """Client → its requests without a slot; none is 0."""
        self._num_waiting = 0
        self._num_behind = 0
        """Those of them whose clients come behind."""
        self._num_running = 0
        self._wanting_until_s: dict[str, float] = {}
        """Client → until when it counts as wanting a place; the earliest first."""

    @property
    def num_held(self) -> int:
        """Places that are taken."""
        return self._num_waiting + self._num_running

    def take(self, client: str, count: int) -> None:
        """Take places for requests of a client, all or none.

        Raises:
            BatchTooLarge: there are never so many.
            Overloaded: there are not so many now, or they are more than the client's share.
        """
        if count > self.num_places:
            raise BatchTooLarge(count, self.num_places)
        if client.startswith(BEHIND):
            if self.num_held and self.num_held + count > self._slots:
                raise Overloaded(self.num_held, self._slots, what=_AHEAD)
            self.add(client, count)
            return
        try:
            self._check(client, count)
        except Overloaded:
            self._wanting_until_s.pop(client, None)  # so that it becomes the last
            self._wanting_until_s[client] = self._clock_s() + WANTING_S
            raise
        self._wanting_until_s.pop(client, None)
        self.add(client, count)

    def add(self, client: str, count: int = 1) -> None:
        """Count requests that have a place whatever its client's share; they have no slot yet."""
        if count:
            self._waiting[client] += count
            self._num_waiting += count
            self._num_behind += count * client.startswith(BEHIND)

    def admitted(self, client: str) -> None:
        """Count a request of the client as running from now on: it has got a slot."""
        self.waiting_ended(client, 1)
        self._num_running += 1

    def waiting_ended(self, client: str, count: int) -> None:
        """Give back the places of requests that have no slot."""
        self._waiting[client] -= count
        self._num_waiting -= count
        self._num_behind -= count * client.startswith(BEHIND)
        assert self._waiting[client] >= 0, (client, self._waiting[client])
        if not self._waiting[client]:
            del self._waiting[client]

    def running_ended(self) -> None:
        """Give back the place of a request that has a slot."""
        self._num_running -= 1
        assert self._num_running >= 0, self._num_running

    def _check(self, client: str, count: int) -> None:
        if self.num_held + count > self.num_places:
            raise Overloaded(self.num_held, self.num_places)
        mine = self._waiting[client]  # a Counter: 0, and no entry, for who has none
        others = self._num_waiting - mine - self._num_behind
        free_slots = self._slots - self._num_running
        if others > free_slots or self._another_wants(client):
            share = self._share + max(0, free_slots - others)
            if mine + count > share:
                raise Overloaded(mine, share, what="requests of this client wait beside others'")

    def _another_wants(self, client: str) -> bool:
        now_s = self._clock_s()
        while self._wanting_until_s:
            first, until_s = next(iter(self._wanting_until_s.items()))
            if until_s > now_s:
                break
            del self._wanting_until_s[first]
        return len(self._wanting_until_s) > (client in self._wanting_until_s)
