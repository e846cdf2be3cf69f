"""What is told of single tokens: which they are, what they spell and how likely they were."""

from collections.abc import Mapping

import msgspec


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token and how likely the model itself held it, before penalties and temperature."""

    token_id: int
    text: str
    """What the bytes spell; U+FFFD for those that are a part of a character."""
    bytes: bytes
    logprob: float
    """Natural logarithm."""
    top: tuple["TokenLogprob", ...] = ()
    """The likeliest tokens in its place, likeliest first, then the others that were asked for."""


class PromptToken(msgspec.Struct, frozen=True):
    """One token of the prompt."""

    token_id: int
    text: str
    bytes: bytes
    logprob: float | None
    """None for the first token, which nothing comes before."""
    top: tuple[TokenLogprob, ...] = ()
    rank: int | None = None
    """1 and how many tokens the model held likelier; None for the first token."""


class PromptLogprobs(msgspec.Struct, frozen=True):
    """Every token of the prompt; before all text, where logprobs of the prompt were asked for."""

    tokens: tuple[PromptToken, ...]


class TokenizedText(msgspec.Struct, frozen=True):
    """A text's token ids on one model."""

    ids: list[int]
    max_model_len: int
    """Tokens of prompt and answer together that the model takes."""
    strings: list[str] = []
    """As the vocabulary writes them, if they were asked for."""


class AddedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token beside a tokenizer's learnt vocabulary, in the words of its file."""

    content: str
    special: bool
    """Whether it is more than text."""
    lstrip: bool
    rstrip: bool
    single_word: bool
    normalized: bool


class TokenizerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A model's tokenizer."""

    vocab_size: int
    capacity: int
    """Tokens of prompt and answer together that the model takes."""
    bos: str | None
    """What begins a text; None: nothing does."""
    eos: str | None
    """What ends one."""
    chat_template: str | None
    """Its source; None: the model takes no conversations."""
    added: Mapping[int, AddedToken]
