"""Which texts run together next: clients take turns, and what runs at once has about one length.

A client's turn is one run. Its oldest job's longest texts go first, and only texts that are about
as long are padded to them; the room that they leave is for such texts of others. Knows no thread
and no text.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.runtime.encoder import Row, Vector


@dataclass(slots=True, eq=False)
class Job:
    """The texts of one request."""

    client: str
    rows: Sequence[Row]
    vectors: "list[Vector | None]" = field(init=False)
    """By text; None while it hasn't run."""
    left: list[int] = field(init=False)
    """Texts that haven't been taken, by index; the longest is the last."""
    unfinished: int = field(init=False)
    given_up: bool = False
    """Whether nobody waits for it any more; set by another thread."""

    def __post_init__(self) -> None:
        self.vectors = [None] * len(self.rows)
        self.left = sorted(range(len(self.rows)), key=lambda index: len(self.rows[index]))
        self.unfinished = len(self.rows)


Taken = list[tuple[Job, int]]
"""Texts of a run: a job, and which one of its texts."""


class Jobs:
    """Jobs that have texts left, by client."""

    def __init__(self, run_tokens: int) -> None:
        """Make it empty.

        Args:
            run_tokens: tokens of a run, padding included; a longer text runs alone.
        """
        self._run_tokens = run_tokens
        self._by_client: dict[str, deque[Job]] = {}
        """By client, none empty; whose turn is next comes first."""

    def __bool__(self) -> bool:
        return bool(self._by_client)

    def add(self, job: Job) -> None:
        """Queue a job behind those of its client."""
        assert job.left, "a job has texts"
        self._by_client.setdefault(job.client, deque()).append(job)

    def clear(self) -> None:
        """Drop all of them."""
        self._by_client.clear()

    def take(self) -> Taken:
        """Take the texts of the next run; empty if nothing is left."""
        self._drop_given_up()
        if not self._by_client:
            return []
        client = next(iter(self._by_client))
        self._by_client[client] = self._by_client.pop(client)  # becomes the last
        first = self._by_client[client][0]
        width = len(first.rows[first.left[-1]])
        room, shortest = max(1, self._run_tokens // width), width * 3 // 4
        taken: Taken = []
        turns = [client, *(other for other in self._by_client if other != client)]
        for other in turns:
            for job in self._by_client[other]:
                # padding costs as much as text: what is much shorter gets a run of its own
                while len(taken) < room and job.left:
                    length = len(job.rows[job.left[-1]])
                    if not shortest <= length <= width:
                        break
                    taken.append((job, job.left.pop()))
        self._drop_taken()
        return taken

    def _drop_given_up(self) -> None:
        self._keep(lambda job: not job.given_up)

    def _drop_taken(self) -> None:
        self._keep(lambda job: bool(job.left))

    def _keep(self, wanted: Callable[[Job], bool]) -> None:
        for client, jobs in list(self._by_client.items()):
            kept = deque(job for job in jobs if wanted(job))
            if kept:
                self._by_client[client] = kept
            else:
                del self._by_client[client]
