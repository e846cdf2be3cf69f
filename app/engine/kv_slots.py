"""Which slots of the KV cache are taken. Integers only: knows no arrays and no sequences."""

import heapq


class KvSlots:
    """Hands out slots, lowest first, so that the slots in use stay a short prefix of the cache."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count))
        self._taken: set[int] = set()

    @property
    def num_free(self) -> int:
        """Slots that nobody holds."""
        return len(self._free)

    @property
    def lowest_free(self) -> int | None:
        """The slot that `take` would return."""
        return self._free[0] if self._free else None

    def take(self) -> int:
        """Take the lowest free slot; the caller has checked that there is one."""
        slot = heapq.heappop(self._free)
        self._taken.add(slot)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back."""
        self._taken.remove(slot)
        heapq.heappush(self._free, slot)

    def check(self, owned: list[int]) -> None:
        """Assert that exactly the slots in `owned` are taken, each once, and no slot is lost."""
        assert len(set(owned)) == len(owned), f"a slot has two owners: {sorted(owned)}"
        assert set(owned) == self._taken, (sorted(owned), sorted(self._taken))
        assert self._taken.isdisjoint(self._free), (self._taken, self._free)
        assert len(self._taken) + len(self._free) == self.count, (self._taken, self._free)
