"""Tokens that a request rules out: all but some, and those that would complete a word.

A word of several tokens is ruled out at its last one, where those before it have just been
generated. What was generated is looked up once for each length that words have, however many of
them there are. Knows token ids, not what they spell.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from app.runtime.decoder import IdArray


class Vetoes:
    """What one request rules out; it never changes, so the choices of a request share it."""

    def __init__(
        self, allowed: Iterable[int] | None = None, words: Iterable[Sequence[int]] = ()
    ) -> None:
        """Note what is ruled out.

        Args:
            allowed: tokens that may come; None: any.
            words: each at least one token; none of them may be generated as a whole.
        """
        self.allowed: IdArray | None = (
            None if allowed is None else np.unique(np.fromiter(allowed, np.int64))
        )
        """int64 [N], ascending."""
        self._endings: dict[tuple[int, ...], list[int]] = {}
        """What has just been generated → the tokens that would complete a word."""
        for word in dict.fromkeys(map(tuple, words)):
            self._endings.setdefault(word[:-1], []).append(word[-1])
        self._lengths = sorted({len(before) for before in self._endings})

    @property
    def always(self) -> list[int]:
        """Words of one token."""
        return self._endings.get((), [])

    @property
    def ids(self) -> set[int]:
        """Every token that it knows of."""
        known = {token_id for before in self._endings for token_id in before}
        known.update(*self._endings.values())
        return known if self.allowed is None else known.union(self.allowed.tolist())

    def completing(self, token_ids: Sequence[int], num_generated: int) -> list[int]:
        """Give the tokens that would complete a word.

        Args:
            token_ids: the prompt's, then those that were generated.
            num_generated: how many those are; a word may not reach into the prompt.
        """
        found: list[int] = []
        for length in self._lengths:
            if length > num_generated:
                break
            before = tuple(token_ids[len(token_ids) - length :])
            found += self._endings.get(before, ())
        return found
