"""Turn a stream of token ids into printable text.

Holds back bytes that end inside a character. The pieces joined are what `Tokenizer.decode` gives
for all ids at once, whatever the ids; the time taken is in proportion to their number. Knows
nothing about stop strings or HTTP.

tokenizers' own `DecodeStream` doesn't keep that promise for tokenizers with byte fallback: of 3000
random sequences it failed on 172 ("Invalid prefix encountered") and gave other text on 1100.
"""

import re
from collections.abc import Collection
from typing import Final

from tokenizers import Tokenizer

_BYTE_TOKEN: Final = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_REPLACEMENT: Final = "\ufffd"
_LONG: Final = 16
"""Ids in a window whose beginning may be dropped; a character is four bytes at most."""


class Detokenizer:
    """The text of one sequence, piece by piece.

    `_window` holds the latest ids: decoding it gives `_num_sent` characters that are out already,
    then what comes next. One id whose text is out stays in front, since many decoders drop the
    space that begins a text.
    """

    def __init__(self, tokenizer: Tokenizer, shown: Collection[str] | None = ()) -> None:
        """Begin a text.

        Args:
            tokenizer: the model's.
            shown: special tokens that count as text, the others give none; None: all of them.
        """
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        special = {token_id: token.content for token_id, token in added.items() if token.special}
        self._shown = {i: text for i, text in special.items() if shown is None or text in shown}
        self._special = special.keys() - self._shown.keys()
        self._window: list[int] = []
        self._num_sent = 0

    def decode(self, token_id: int) -> str:
        """Take one more id; return the text that is now certain, often none."""
        if token_id in self._shown:
            text_before = self.flush()
            self._window, self._num_sent = [], 0
            marker: str = self._shown[token_id]
            return text_before + marker
        token = None if token_id in self._special else self._tokenizer.id_to_token(token_id)
        if token is None:  # a model's vocabulary may be padded beyond the tokenizer's
            return ""
        self._window.append(token_id)
        # A run of byte tokens is decoded as one: a wrong byte turns all of it into U+FFFD.
        if _BYTE_TOKEN.fullmatch(token):
            return ""
        text: str = self._tokenizer.decode(self._window)
        certain = text.removesuffix(_REPLACEMENT)  # at the end: perhaps half a character
        piece = certain[self._num_sent :]
        if certain == text and text:
            self._window = [token_id]
            self._num_sent = len(self._tokenizer.decode(self._window))
        else:
            self._num_sent = len(certain)
            if len(self._window) % _LONG == 0:
                self._shorten(text)
        return piece

    def flush(self) -> str:
        """Return what was held back; the sequence has ended."""
        text: str = self._tokenizer.decode(self._window)
        piece = text[self._num_sent :]
        self._num_sent = len(text)
        return piece

    def _shorten(self, text: str) -> None:
        """Drop the window's beginning up to a place between two characters.

        Text that goes on ending in U+FFFD would be decoded again as a whole with every token.
        Cut inside a character, the two sides have more replacements than the whole.

        Args:
            text: the window's.
        """
        for cut in range(len(self._window) - 4, len(self._window) - 8, -1):
            before = self._tokenizer.decode(self._window[:cut])
            front = self._tokenizer.decode(self._window[cut - 1 : cut])
            rest = self._tokenizer.decode(self._window[cut - 1 :])
            if rest.startswith(front) and before + rest[len(front) :] == text:
                del self._window[: cut - 1]
                self._num_sent -= len(before) - len(front)
                return
