"""Guess a sequence's next tokens from its own: what followed the last time that it said the same.

A guess costs part of a step when it is wrong, so guesses get longer while they hold and pause
while they don't. Knows nothing of how guesses are verified.

Source: prompt lookup decoding, as in Transformers' `prompt_lookup_num_tokens`.
"""

from collections.abc import Sequence
from typing import Final

NGRAM: Final = 3
"""Tokens that must repeat before what followed them is guessed: after two, most prose guesses
are wrong."""
FIRST_DRAFT: Final = 4
MAX_PAUSE: Final = 64
"""Tokens until a text that never repeats itself is tried again."""


class Drafts:
    """The guesses of one sequence."""

    def __init__(self, max_tokens: int) -> None:
        """Guess up to `max_tokens` tokens at a time."""
        self._max_tokens = max_tokens
        self._length = min(FIRST_DRAFT, max_tokens)
        self._pause = 0
        self._pause_until = 0
        self._follows: dict[tuple[int, ...], int] = {}
        """N-gram → place of the token after its latest occurrence but the very last one."""
        self._indexed = NGRAM

    def propose(self, token_ids: Sequence[int]) -> list[int]:
        """Guess what comes next, often nothing.

        Args:
            token_ids: all tokens so far; only ever grows between calls.
        """
        for end in range(self._indexed, len(token_ids)):
            self._follows[tuple(token_ids[end - NGRAM : end])] = end
        self._indexed = max(self._indexed, len(token_ids))
        if len(token_ids) < self._pause_until:
            return []
        place = self._follows.get(tuple(token_ids[-NGRAM:]))
        return [] if place is None else list(token_ids[place : place + self._length])

    def note(self, num_proposed: int, num_accepted: int, num_tokens: int) -> None:
        """Learn from a guess.

        Args:
            num_proposed: its length, at least 1.
            num_accepted: how many of its tokens came true.
            num_tokens: of the sequence, now.
        """
        if num_accepted == num_proposed:
            self._length = min(2 * self._length, self._max_tokens)
        elif num_accepted:
            self._length = min(max(FIRST_DRAFT, num_accepted + 1), self._max_tokens)
        if num_accepted:
            self._pause = 0
        else:
            self._length = min(FIRST_DRAFT, self._max_tokens)
            self._pause = min(2 * self._pause + 4, MAX_PAUSE)
            self._pause_until = num_tokens + self._pause
