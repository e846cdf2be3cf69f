"""Build a tokenizer from a GGUF file's own metadata.

Transformers has a converter, but it guesses: it prepends a BOS that the file says not to add, and
it ignores the pre-tokenizer. Here each value of `tokenizer.ggml.pre` is a row of `gguf_words`, and
one that isn't there is refused. Byte-level BPE and SentencePiece's BPE. Knows no weights.

Source: llama.cpp's src/llama-vocab.cpp for what each field means and what it is by default.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from tokenizers.processors import TemplateProcessing

from export.errors import SourceUnusable
from export.file_checks import refusing, shown
from export.gguf_words import SPLITTINGS

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
"""Values of `tokenizer.ggml.token_type`; the last two are matched whole, before any splitting."""
SPACE: Final = "\u2581"
"""What SentencePiece writes for a space."""


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
    pieces = kind == "llama"
    if not pieces and not (kind == "gpt2" and isinstance(name, str) and name in SPLITTINGS):
        known = ", ".join(SPLITTINGS)
        raise SourceUnusable(
            f"{file}: its tokenizer is {shown(kind)} with pre-tokenizer {shown(name)}, "
            f"supported are 'llama', and 'gpt2' with {known}"
        )
    tokens = _texts(metadata, "tokenizer.ggml.tokens", file)
    types = _numbers(metadata, "tokenizer.ggml.token_type", len(tokens), file)
    with refusing(f"{file}: tokenizer.ggml"):
        if pieces:
            tokenizer = _sentence_pieces(metadata, tokens, types, file)
        else:
            tokenizer = _byte_level(metadata, tokens, file)
    for token, token_type in zip(tokens, types, strict=bool(types)):
        if token_type in (CONTROL, USER_DEFINED):
            special = token_type == CONTROL
            tokenizer.add_tokens([AddedToken(token, special=special, normalized=False)])
    bos_id = bos_id_of(metadata, file)
    adds_bos = pieces or SPLITTINGS[name].add_bos
    if metadata.get("tokenizer.ggml.add_bos_token", adds_bos) and bos_id is not None:
        bos = tokens[bos_id]
        tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, bos_id)]
        )
    return tokenizer


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str], file: str) -> Tokenizer:
    """GPT-2's kind: words, then bytes as characters, then merges in the file's order."""
    splitting = SPLITTINGS[metadata["tokenizer.ggml.pre"]]
    merges = []
    for text in _texts(metadata, "tokenizer.ggml.merges", file):
        first, space, second = text.partition(" ")
        if not (first and space and second):
            raise SourceUnusable(f"{file}: tokenizer.ggml.merges has {shown(text)}, not two tokens")
        merges.append((first, second))
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, ignore_merges=splitting.whole_words_first)
    )
    if splitting.compose:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splitting.steps()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_pieces(
    metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], file: str
) -> Tokenizer:
    """SentencePiece's kind: no words, the best score merges first, bytes for unknown characters."""
    scores = _numbers(metadata, "tokenizer.ggml.scores", len(tokens), file)
    if not scores:
        raise SourceUnusable(f"{file}: tokenizer.ggml.scores is missing")
    vocab = {token: i for i, token in enumerate(tokens)}
    unknown = _token_id(metadata, "tokenizer.ggml.unknown_token_id", file)
    if unknown is None and UNKNOWN in types:
        unknown = list(types).index(UNKNOWN)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=_merges(tokens, scores, vocab),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefixed = metadata.get("tokenizer.ggml.add_space_prefix", True)
    steps: list[normalizers.Normalizer] = [normalizers.Prepend(SPACE)] if prefixed else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    back = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(back + [decoders.Strip(" ", 1, 0)] * bool(prefixed))
    return tokenizer


def _merges(
    tokens: Sequence[str], scores: Sequence[float], vocab: Mapping[str, int]
) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a third, the third's score deciding which comes first."""
    found = [
        (-scores[i], vocab[token[:cut]], vocab[token[cut:]])
        for i, token in enumerate(tokens)
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    return [(tokens[first], tokens[second]) for _, first, second in sorted(found)]


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


def _numbers(metadata: Mapping[str, Any], field: str, count: int, file: str) -> list[Any]:
    """A list with a number for each token; empty where the file has none."""
    value = metadata.get(field, [])
    if not isinstance(value, list) or (value and len(value) != count):
        raise SourceUnusable(f"{file}: {field} is {shown(value)}, expected {count} numbers")
    return value
