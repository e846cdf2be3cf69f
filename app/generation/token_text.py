"""What a single token spells: its bytes, and their text.

A token of a byte-level vocabulary (GPT-2, Llama 3, Qwen) is written with a letter for each byte;
one of a vocabulary with byte fallback (Llama 2, Mistral) is plain text with ▁ for a space, or
`<0x0A>` for one byte. Which it is, the tokenizer's decoder says. Any other kind of vocabulary
gives what decoding the token alone gives. Knows nothing of the tokens around one: the space that
some decoders drop from a text's beginning is there.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tokenizers import Tokenizer
from tokenizers.models import BPE

from app.contract.tokens import PromptToken, TokenLogprob
from app.engine.sequence import ScoredToken

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters: printable Latin-1 stands for itself, the rest for 256 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + index): byte for index, byte in enumerate(others)}


_BYTE_LETTERS: Final = _byte_letters()


class TokenTexts:
    """The tokens of one tokenizer, looked up as they are needed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._added: dict[int, str] = {token_id: token.content for token_id, token in added.items()}
        kinds = _decoder_kinds(tokenizer)
        self._byte_level = "ByteLevel" in kinds
        self._byte_fallback = "ByteFallback" in kinds

    def bytes_of(self, token_id: int) -> bytes:
        """Give a token's bytes; none for an id beyond the tokenizer's vocabulary."""
        if token_id in self._added:
            return self._added[token_id].encode()
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        if self._byte_level and all(letter in _BYTE_LETTERS for letter in token):
            return bytes(_BYTE_LETTERS[letter] for letter in token)
        if self._byte_fallback:
            byte = _BYTE_TOKEN.fullmatch(token)
            return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
        text: str = self._tokenizer.decode([token_id])
        return text.encode()

    def logprob(self, token: ScoredToken) -> TokenLogprob:
        """Spell out a token and those that were likeliest in its place."""
        return self._spelled(token.token_id, token.logprob, self._top(token))

    def prompt(
        self, prompt_ids: list[int], tokens: tuple[ScoredToken, ...]
    ) -> Iterator[PromptToken]:
        """Spell out a prompt, token by token: each takes microseconds, all of them may be many.

        Args:
            prompt_ids: all of it.
            tokens: of its second token to its last.
        """
        first = self.bytes_of(prompt_ids[0])
        yield PromptToken(prompt_ids[0], _text(first), first, None)
        for token in tokens:
            content = self.bytes_of(token.token_id)
            top = self._top(token)
            yield PromptToken(
                token.token_id, _text(content), content, token.logprob, top, token.rank
            )

    def _top(self, token: ScoredToken) -> tuple[TokenLogprob, ...]:
        return tuple(self._spelled(token_id, logprob) for token_id, logprob in token.top)

    def _spelled(
        self, token_id: int, logprob: float, top: tuple[TokenLogprob, ...] = ()
    ) -> TokenLogprob:
        content = self.bytes_of(token_id)
        return TokenLogprob(token_id, _text(content), content, logprob, top)


def _text(content: bytes) -> str:
    return content.decode(errors="replace")


def _decoder_kinds(tokenizer: Tokenizer) -> set[str]:
    """Return the types of the tokenizer's decoder and of those inside it."""
    # Decoders can't be written out alone, and a tokenizer brings its vocabulary of megabytes.
    bare = Tokenizer(BPE())
    if tokenizer.decoder is not None:  # it may be set but not taken away
        bare.decoder = tokenizer.decoder
    decoder = json.loads(bare.to_str())["decoder"]
    return _kinds(decoder) if decoder is not None else set()


def _kinds(decoder: dict[str, Any]) -> set[str]:
    inner = decoder.get("decoders", ())
    return {decoder["type"]}.union(*map(_kinds, inner))
