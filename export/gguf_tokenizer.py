"""Build a tokenizer from a GGUF file's own metadata.

Transformers has a converter, but it guesses: it prepends a BOS that the file says not to add, and
it ignores the pre-tokenizer. Here each value of `tokenizer.ggml.pre` is a row of a table, and one
that isn't in it is refused. Byte-level BPE only. Knows nothing about weights.

Source: llama.cpp's src/llama-vocab.cpp for how each pre-tokenizer splits text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers.processors import TemplateProcessing

from export.errors import SourceUnusable
from export.file_checks import refusing, shown

CONTROL, USER_DEFINED = 3, 4
"""Values of `tokenizer.ggml.token_type` whose tokens are matched whole, before any splitting."""

WORDS_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS_QWEN2 = WORDS_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True)
class Splitting:
    """How text is split into words before merges apply."""

    digits_alone: bool = False
    """Each digit is a word."""
    words: str | None = None
    """A regular expression; None: GPT-2's, which is built into the byte-level step."""
    compose: bool = False
    """Normalise text to Unicode NFC first."""
    whole_words_first: bool = False
    """A word that is a token becomes that token, whatever its merges would give."""
    add_bos: bool = False
    """Whether llama.cpp prepends a BOS if the file doesn't say."""

    def steps(self) -> pre.PreTokenizer:
        """The pre-tokenizer that splits so."""
        steps: list[pre.PreTokenizer] = []
        if self.digits_alone:
            steps.append(pre.Digits(individual_digits=True))
        if self.words is not None:
            steps.append(pre.Split(Regex(self.words), behavior="isolated"))
        steps.append(pre.ByteLevel(add_prefix_space=False, use_regex=self.words is None))
        return pre.Sequence(steps) if len(steps) > 1 else steps[0]


SPLITTINGS: Mapping[str, Splitting] = {
    "gpt-2": Splitting(),
    "smollm": Splitting(digits_alone=True),
    "starcoder": Splitting(digits_alone=True),
    "refact": Splitting(digits_alone=True),
    "llama-bpe": Splitting(words=WORDS_LLAMA3, whole_words_first=True, add_bos=True),
    "qwen2": Splitting(words=WORDS_QWEN2, compose=True),
}


def tokenizer_from_gguf(metadata: Mapping[str, Any], file: str = "the GGUF file") -> Tokenizer:
    """Build the tokenizer that the `tokenizer.ggml.*` fields describe.

    Args:
        metadata: the fields of a GGUF file.
        file: what to call it in a refusal.

    Raises:
        SourceUnusable: a field is missing or damaged, or the tokenizer is of a kind that isn't
            supported.
    """
    kind, name = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "")
    splitting = SPLITTINGS.get(name) if isinstance(name, str) else None
    if kind != "gpt2" or splitting is None:
        known = ", ".join(SPLITTINGS)
        raise SourceUnusable(
            f"{file}: its tokenizer is {shown(kind)} with pre-tokenizer {shown(name)}, "
            f"supported are 'gpt2' with {known}"
        )
    tokens = _texts(metadata, "tokenizer.ggml.tokens", file)
    merges = []
    for text in _texts(metadata, "tokenizer.ggml.merges", file):
        first, space, second = text.partition(" ")
        if not (first and space and second):
            raise SourceUnusable(f"{file}: tokenizer.ggml.merges has {shown(text)}, not two tokens")
        merges.append((first, second))
    types = metadata.get("tokenizer.ggml.token_type", [])
    if not isinstance(types, list) or (types and len(types) != len(tokens)):
        raise SourceUnusable(
            f"{file}: tokenizer.ggml.token_type is {shown(types)}, expected {len(tokens)} numbers"
        )
    with refusing(f"{file}: tokenizer.ggml"):
        tokenizer = Tokenizer(
            models.BPE(
                vocab={token: i for i, token in enumerate(tokens)},
                merges=merges,
                ignore_merges=splitting.whole_words_first,
            )
        )
    if splitting.compose:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splitting.steps()
    tokenizer.decoder = decoders.ByteLevel()
    for token, token_type in zip(tokens, types, strict=bool(types)):
        if token_type in (CONTROL, USER_DEFINED):
            special = token_type == CONTROL
            tokenizer.add_tokens([AddedToken(token, special=special, normalized=False)])
    bos_id = bos_id_of(metadata, file)
    if metadata.get("tokenizer.ggml.add_bos_token", splitting.add_bos) and bos_id is not None:
        bos = tokens[bos_id]
        tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, bos_id)]
        )
    return tokenizer


def bos_id_of(metadata: Mapping[str, Any], file: str = "the GGUF file") -> int | None:
    """The id of the token that begins a text, if the file has one.

    Raises:
        SourceUnusable: it is not the id of one of the file's tokens.
    """
    return _token_id(metadata, "tokenizer.ggml.bos_token_id", file)


def end_ids(metadata: Mapping[str, Any], file: str = "the GGUF file") -> tuple[int, ...]:
    """Ids of the tokens that end a text: the end of sequence first, then those that end a turn.

    Raises:
        SourceUnusable: one is not the id of one of the file's tokens.
    """
    names = ("eos_token_id", "eot_token_id", "eom_token_id")
    found = (_token_id(metadata, f"tokenizer.ggml.{name}", file) for name in names)
    return tuple(dict.fromkeys(i for i in found if i is not None))


def _token_id(metadata: Mapping[str, Any], field: str, file: str) -> int | None:
    value = metadata.get(field)
    if value is None:
        return None
    tokens = metadata["tokenizer.ggml.tokens"]
    if type(value) is not int or not 0 <= value < len(tokens):
        raise SourceUnusable(f"{file}: {field} is {shown(value)}, there are {len(tokens)} tokens")
    return value


def _texts(metadata: Mapping[str, Any], field: str, file: str) -> list[str]:
    value = metadata.get(field)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise SourceUnusable(f"{file}: {field} is {shown(value)}, expected texts")
    return value
