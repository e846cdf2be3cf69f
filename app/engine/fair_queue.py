"""Who gets the next slot: first come first served within a client, and clients take turns.

While a client waits, every other client gets at most one slot before it, however many requests
that one has queued; so nobody starves, but clients who come behind: they take turns when nobody
else waits. Knows no slots.
"""

from collections import deque
from collections.abc import Iterator

from app.contract.generation import BEHIND
from app.engine.sequence import Sequence


class FairQueue:
    """Sequences that wait for a slot."""

    def __init__(self) -> None:
        self._by_client: dict[str, deque[Sequence]] = {}
        """Clients with sequences, none empty; whose turn is next comes first."""
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Sequence]:
        for sequences in self._by_client.values():
            yield from sequences

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those of its client; a client that is new here comes last."""
        self._by_client.setdefault(sequence.request.client, deque()).append(sequence)
        self._length += 1

    def take(self) -> Sequence:
        """Take the sequence whose turn it is; the caller has checked that one waits."""
        ahead = (client for client in self._by_client if not client.startswith(BEHIND))
        client = next(ahead, next(iter(self._by_client)))
        sequences = self._by_client.pop(client)
        sequence = sequences.popleft()
        if sequences:
            self._by_client[client] = sequences
        self._length -= 1
        return sequence

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that waits; its client's turn stays where it is."""
        client = sequence.request.client
        sequences = self._by_client[client]
        sequences.remove(sequence)
        if not sequences:
            del self._by_client[client]
        self._length -= 1
