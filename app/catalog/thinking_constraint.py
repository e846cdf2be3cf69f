"""Let a model think before another constraint holds, for as many tokens as it may.

Knows the markers around thinking; not whose they are, nor what is done with the text.
"""

from typing import Final

from tokenizers import Tokenizer

from app.engine.sequence import Constraint
from app.runtime.decoder import CountArray

_RECENT: Final = 24
"""Tokens in which a closing marker is looked for that is not one token."""


class ThinkingConstraint:
    """Lets a model think, as long as it may, before another constraint holds.

    A `Constraint` of the engine.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        opening: str,
        closing: str,
        *,
        begun: bool,
        budget: int | None,
        answer: Constraint | None,
    ) -> None:
        """Begin a text.

        Args:
            tokenizer: the model's.
            opening: what stands in front of thinking.
            closing: what stands after it.
            begun: whether the prompt ends inside it.
            budget: tokens of thinking, its markers not counted; None: any number.
            answer: what holds after it; None: any token may come.
        """

        def ids_of(text: str) -> list[int]:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            return ids

        self._tokenizer = tokenizer
        self._opening_text, self._closing_text = opening, closing
        self._answer = answer
        self._opening = ids_of(opening)
        self._closing = ids_of(closing)
        self._left = budget
        self._forced: list[int] = []
        """Tokens that have to come next."""
        self._recent: list[int] = []
        self._inside = begun
        first = tokenizer.get_added_tokens_decoder().get(self._opening[0])
        self._own_token = first is not None
        """Whether the opening begins with a token that begins nothing else."""
        # Else an answer may begin as thinking does: it is held to its form from the start.
        self._waits = not begun and (answer is None or self._own_token)
        """Whether thinking may still begin."""
        self._force_if_spent()

    @property
    def ended(self) -> bool:
        """Whether nothing but the end can follow."""
        return not self._before_answer and self._answer is not None and self._answer.ended

    @property
    def _before_answer(self) -> bool:
        return bool(self._forced) or self._inside or self._waits

    def fill_mask(self, mask: CountArray) -> None:
        """Set the bits of the allowed tokens."""
        if self._forced:
            mask[:] = 0
            _set(mask, self._forced[0])
        elif self._inside or self._answer is None:
            mask[:] = -1
        else:
            self._answer.fill_mask(mask)
            if self._waits:
                _set(mask, self._opening[0])

    def accept(self, token_id: int) -> None:
        """Take the token that was sampled."""
        if self._forced:
            self._forced.pop(0)
            return
        if self._waits and self._answer is not None:
            self._waits = False
            if token_id == self._opening[0]:
                self._inside = True
                self._forced = self._opening[1:]
                return
        if self._waits:
            self._look_for_beginning(token_id)
        elif self._inside:
            self._think(token_id)
        elif self._answer is not None:
            self._answer.accept(token_id)

    def _look_for_beginning(self, token_id: int) -> None:
        self._recent.append(token_id)
        text = self._tokenizer.decode(self._recent, skip_special_tokens=False).lstrip()
        opening = self._opening_text
        if text.startswith(opening):
            self._waits, self._inside = False, True
            self._recent.clear()
            self._force_if_spent()
        elif not opening.startswith(text):
            self._waits = False

    def _think(self, token_id: int) -> None:
        if len(self._closing) == 1:
            over = token_id == self._closing[0]
        else:
            self._recent = [*self._recent[-_RECENT:], token_id]
            text = self._tokenizer.decode(self._recent, skip_special_tokens=False)
            over = self._closing_text in text
        if over:
            self._inside = False
            return
        if self._left is not None:
            self._left -= 1
            self._force_if_spent()

    def _force_if_spent(self) -> None:
        if self._inside and self._left is not None and self._left <= 0:
            self._inside = False
            self._forced = list(self._closing)


def _set(mask: CountArray, token_id: int) -> None:
    # int32 words: bit 31 is the sign
    bit = 1 << token_id % 32
    mask[token_id // 32] |= bit - (1 << 32) if bit >> 31 else bit
