"""Which blocks of prompts have their keys and values kept, so that nobody computes them twice.

A block is `BLOCK_TOKENS` tokens of a prompt at their place: its key is a hash over them and all
that comes before, over whose prompt it is and over the adapter that computed it. Blocks live in a
pool beside the slots; this is the pool's index. Only what a prompt chunk computed is kept: a decode
step rounds differently, and a text must not depend on what was asked before.

Integers and hashes only: knows no arrays.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from app.runtime.decoder import BLOCK_TOKENS

BlockKey = bytes


def block_keys(token_ids: Sequence[int], tenant: str, adapter: int = 0) -> list[BlockKey]:
    """Give the keys of a prompt's whole blocks that a later prompt may begin with.

    The last two tokens are always computed: their logits are needed, and a chunk of one token
    rounds differently (see `scheduler.chunk_size`).

    Args:
        token_ids: the prompt.
        tenant: prompts of different tenants never share a block.
        adapter: nor do those of different adapters, whose keys and values differ; 0: none.
    """
    ids = np.asarray(token_ids, "<i8")
    key = hashlib.blake2b(f"{adapter} {tenant}".encode(), digest_size=16).digest()
    keys = []
    for start in range(0, len(ids) - 1 - BLOCK_TOKENS, BLOCK_TOKENS):
        block = ids[start : start + BLOCK_TOKENS].tobytes()
        key = hashlib.blake2b(block, key=key, digest_size=16).digest()
        keys.append(key)
    return keys


class PrefixCache:
    """The index of a pool of blocks; the least recently used goes when the pool is full."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._blocks: OrderedDict[BlockKey, int] = OrderedDict()
        """Key → place in the pool, least recently used first."""
        self._free = list(range(num_blocks))

    def leading(self, keys: Sequence[BlockKey]) -> list[int]:
        """Look up as many of `keys`, from the first one on, as are there without a gap.

        Returns:
            Their places in the pool; they count as used just now.
        """
        found = []
        for key in keys:
            if key not in self._blocks:
                break
            found.append(self._blocks[key])
        # The first block last: it is useful without those after it, they are useless without it.
        for key in reversed(keys[: len(found)]):
            self._blocks.move_to_end(key)
        return found

    def extend(self, keys: Sequence[BlockKey]) -> list[tuple[int, int]]:
        """Keep a prompt's leading blocks, dropping what was used longest ago where it must go.

        Returns:
            (index in `keys`, place in the pool) of those that were not there and are to be filled
            now. Fewer than are missing if the prompt alone is larger than the pool.
        """
        added = []
        for index in range(len(self.leading(keys)), len(keys)):
            if keys[index] in self._blocks:
                continue
            place = self._take_place(own=keys[:index])
            if place is None:
                break
            self._blocks[keys[index]] = place
            added.append((index, place))
        self.leading(keys)
        return added

    def _take_place(self, own: Sequence[BlockKey]) -> int | None:
        """A place that is free or whose block goes; blocks in `own` stay."""
        if self._free:
            return self._free.pop()
        oldest = next((key for key in self._blocks if key not in own), None)
        return None if oldest is None else self._blocks.pop(oldest)

    def check(self) -> None:
        """Assert that every place of the pool is free or used once."""
        used = list(self._blocks.values())
        assert sorted([*used, *self._free]) == list(range(self.num_blocks)), (used, self._free)
