"""Turn a stream of token ids into printable text.

Holds back bytes that end inside a character. The pieces joined are what `Tokenizer.decode` gives
for all ids at once, whatever the ids. Knows nothing about stop strings or HTTP.

tokenizers' own `DecodeStream` doesn't keep that promise for tokenizers with byte fallback: of 3000
random sequences it failed on 172 ("Invalid prefix encountered") and gave other text on 1100.
"""

import re
from collections.abc import Collection
from typing import Final

from tokenizers import Tokenizer

_BYTE_TOKEN: Final = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_REPLACEMENT: Final = "\ufffd"


class Detokenizer:
    """The text of one sequence, piece by piece.

    `_window` are the latest ids: decoding it gives `_sent`, which is out already, and what comes
    next. One id of known text stays in front, since many decoders drop the space that begins
    a text.
    """

    def __init__(self, tokenizer: Tokenizer, shown: Collection[str] = ()) -> None:
        """Begin a text.

        Args:
            tokenizer: its special tokens are no text,
            shown: except these.
        """
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        special = {token_id: token.content for token_id, token in added.items() if token.special}
        self._shown = {i: content for i, content in special.items() if content in shown}
        self._special = special.keys() - self._shown.keys()
        self._window: list[int] = []
        self._sent = ""

    def decode(self, token_id: int) -> str:
        """Take one more id; return the text that is now certain, often none."""
        if token_id in self._shown:
            text_before = self.flush()
            self._window, self._sent = [], ""
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
        piece = certain[len(self._sent) :]
        if certain == text and text:
            self._window = [token_id]
            self._sent = self._tokenizer.decode(self._window)
        else:
            self._sent = certain
        return piece

    def flush(self) -> str:
        """Return what was held back; the sequence has ended."""
        text: str = self._tokenizer.decode(self._window)
        piece = text[len(self._sent) :]
        self._sent = text
        return piece
