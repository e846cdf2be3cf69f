"""Hold tokens back until all of their text is out.

A token's text is out with the first characters that come with it or after it: a token that is half
a character waits for the other half. Counts characters; knows nothing of why text is held.
"""

from collections import deque

from app.contract.tokens import TokenLogprob


class TokenLedger:
    """The tokens of one text."""

    def __init__(self) -> None:
        self._spelled = 0
        self._unspelled: list[TokenLogprob] = []
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()
        """(where its text ends in the whole text, the token)."""
        self._taken = 0
        """Where the text of the last token that was given ends."""

    def add(self, token: TokenLogprob) -> None:
        """Note the token that is decoded next."""
        self._unspelled.append(token)

    def spell(self, characters: int, *, at_end: bool) -> None:
        """Note how many characters came out of the tokens so far."""
        self._spelled += characters
        if characters or at_end:
            self._waiting.extend((self._spelled, token) for token in self._unspelled)
            self._unspelled.clear()

    def take(self, end: int) -> tuple[TokenLogprob, ...]:
        """Give the tokens whose text lies before `end`."""
        tokens = []
        while self._waiting and self._waiting[0][0] <= end:
            self._taken, token = self._waiting.popleft()
            tokens.append(token)
        return tuple(tokens)

    def take_cut(self, end: int) -> tuple[TokenLogprob, ...]:
        """Give the tokens whose text begins before `end`, where a stop string has cut the last."""
        tokens = list(self.take(end))
        while self._waiting and self._taken < end:
            self._taken, token = self._waiting.popleft()
            tokens.append(token)
        return tuple(tokens)
