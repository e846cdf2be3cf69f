"""Make token ids of the words that a request doesn't want, and check those that it allows.

A word is ruled out as it begins a text and as it follows a space, as vLLM does; a text that
spells it with other tokens is not found.
"""

from typing import Final

from app.contract.generation import GenerationRequest
from app.engine.vetoes import Vetoes
from app.errors import InvalidParameter
from app.generation.models import TextModel

MOST_OF_A_WORD: Final = 32
"""Tokens."""


def vetoes_of(model: TextModel, request: GenerationRequest) -> Vetoes | None:
    """Make what the engine is told to rule out; None: nothing.

    Raises:
        InvalidParameter: a word has no token, or more than it may, or nothing is left.
    """
    if request.allowed_ids is None and not request.bad_words:
        return None
    vetoes = Vetoes(request.allowed_ids, _spelled(model, request.bad_words))
    if vetoes.allowed is not None and set(vetoes.allowed.tolist()) <= set(vetoes.always):
        limit = "at least one that is none of bad_words"
        raise InvalidParameter("allowed_token_ids", list(request.allowed_ids or ()), limit)
    return vetoes


class SharedVetoes:
    """What the choices of one request rule out, made once for all of them."""

    def __init__(self) -> None:
        self._made: dict[tuple[tuple[str, ...], tuple[int, ...] | None], Vetoes | None] = {}

    def of(self, model: TextModel, request: GenerationRequest) -> Vetoes | None:
        """Make it, or give what was made; see `vetoes_of`."""
        asked = request.bad_words, request.allowed_ids
        if asked not in self._made:
            self._made[asked] = vetoes_of(model, request)
        return self._made[asked]


def _spelled(model: TextModel, words: tuple[str, ...]) -> list[list[int]]:
    texts = [spaced for word in words for spaced in (word.lstrip(), f" {word.lstrip()}")]
    # `encode` would hold the interpreter's lock
    encoded = model.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    spelled: list[list[int]] = [encoding.ids for encoding in encoded]
    for place, ids in enumerate(spelled):
        if not 1 <= len(ids) <= MOST_OF_A_WORD or max(ids) >= model.vocab_size:
            index = place // 2
            limit = f"a word of 1 to {MOST_OF_A_WORD} of this model's tokens"
            raise InvalidParameter(f"bad_words[{index}]", words[index], limit)
    return spelled
