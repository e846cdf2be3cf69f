"""Speculative decoding: draft a sequence's next tokens from what it has said before.

The draft is what followed the last time that the sequence's latest tokens occurred in it. A
rejected draft token costs part of a step, so drafts get longer while they are accepted and pause
while they are not. Knows nothing of how drafts are verified.

Source: prompt lookup decoding, as in Transformers' `prompt_lookup_num_tokens`.
"""

from collections.abc import Sequence
from typing import Final

NGRAM: Final = 3
"""Latest tokens that must have occurred before; with two, most drafts in prose are rejected."""
FIRST_DRAFT: Final = 4
"""Tokens of the first draft, and of the first one after a rejected draft."""
MAX_PAUSE: Final = 64
"""Tokens after which even a text that never repeats itself gets another draft."""


class Drafts:
    """Proposes draft tokens for one sequence."""

    def __init__(self, max_tokens: int) -> None:
        """Propose up to `max_tokens` tokens at a time."""
        self._max_tokens = max_tokens
        self._length = min(FIRST_DRAFT, max_tokens)
        self._pause = 0
        self._pause_until = 0
        self._follows: dict[tuple[int, ...], int] = {}
        """N-gram → index of the token after its latest occurrence, the very last one excepted."""
        self._indexed = NGRAM

    def propose(self, token_ids: Sequence[int]) -> list[int]:
        """Propose what comes next; often nothing.

        Args:
            token_ids: all tokens so far; only ever grows between calls.
        """
        for end in range(self._indexed, len(token_ids)):
            self._follows[tuple(token_ids[end - NGRAM : end])] = end
        self._indexed = max(self._indexed, len(token_ids))
        if len(token_ids) < self._pause_until:
            return []
        start = self._follows.get(tuple(token_ids[-NGRAM:]))
        return [] if start is None else list(token_ids[start : start + self._length])

    def note(self, num_proposed: int, num_accepted: int, num_tokens: int) -> None:
        """Learn from a draft that was verified.

        Args:
            num_proposed: tokens of the draft, at least 1.
            num_accepted: leading tokens of it that the model said too.
            num_tokens: tokens of the sequence by now.
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
