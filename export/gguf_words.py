"""How each pre-tokenizer that a GGUF file can name splits text into words, before merges apply.

Data and the steps that apply them. Regular expressions of one row are applied one after the other,
each to the pieces that the ones before it left.

Source: llama.cpp's src/llama-vocab.cpp.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tokenizers import Regex
from tokenizers import pre_tokenizers as pre

# Parts that several have, in the order in which a pattern tries them.
CONTRACTION: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LETTERS: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+"
SIGNS: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
SIGNS_OR_PATHS: Final = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
LINES: Final = r"\s*[\r\n]+"
SPACES: Final = r"\s+(?!\S)"
UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _either(*parts: str) -> str:
    return "|".join(parts)


def _cased(ending: str, numbers: str) -> str:
    """Words that end where lower case turns into upper case."""
    before = r"[^\r\n\p{L}\p{N}]?"
    return _either(
        f"{before}{UPPER}*{LOWER}+{ending}",
        f"{before}{UPPER}+{LOWER}*{ending}",
        *(numbers, SIGNS_OR_PATHS, LINES, SPACES, r"\s+"),
    )


GPT2: Final = _either(
    *("'s|'t|'re|'ve|'m|'ll|'d", r" ?\p{L}+", r" ?\p{N}+", r" ?[^\s\p{L}\p{N}]+", SPACES, r"\s+")
)
LLAMA3: Final = _either(CONTRACTION, LETTERS, r"\p{N}{1,3}", SIGNS, LINES, SPACES, r"\s+")
QWEN2: Final = _either(CONTRACTION, LETTERS, r"\p{N}", SIGNS, LINES, SPACES, r"\s+")
QWEN35: Final = _either(
    *(CONTRACTION, r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", r"\p{N}"),
    *(r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", LINES, SPACES, r"\s+"),
)
DEEPSEEK_V3: Final = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    _either(
        r"[!-/:-@\[-`{-~][A-Za-z]+",
        r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
        *(r" ?[\p{P}\p{S}]+[\r\n]*", LINES, SPACES, r"\s+"),
    ),
)
DEEPSEEK_CODER: Final = (
    *(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"),
)
FALCON: Final = (r"[\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]")
DEFAULT: Final = (r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")
BLOOM: Final = r" ?[^(\s|.,!?…。，、।۔،)]+"


@dataclass(frozen=True)
class Splitting:
    """How text is split into words."""

    words: tuple[str, ...]
    """Regular expressions; what one matches is a word, what is between its matches another."""
    compose: bool = False
    """Normalise text to Unicode NFC first."""
    whole_words_first: bool = False
    """A word that is a token becomes that token, whatever its merges would give."""
    add_bos: bool = False
    """Whether llama.cpp prepends a BOS if the file doesn't say."""

    def steps(self) -> pre.PreTokenizer:
        """The pre-tokenizer that splits so, and makes bytes into characters."""
        splits = [pre.Split(Regex(words), behavior="isolated") for words in self.words]
        return pre.Sequence([*splits, pre.ByteLevel(add_prefix_space=False, use_regex=False)])


_PLAIN = Splitting((GPT2,))
_DIGITS = Splitting((r"\p{N}", GPT2))
_LLAMA3 = Splitting((LLAMA3,), whole_words_first=True, add_bos=True)
_QWEN2 = Splitting((QWEN2,), compose=True)
_GPT4O = Splitting((_cased(f"{CONTRACTION}?", r"\p{N}{1,3}"),))
_DEEPSEEK_V3 = Splitting(DEEPSEEK_V3)
SPLITTINGS: Final[Mapping[str, Splitting]] = {
    "default": Splitting(DEFAULT),
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "gigachat", "a.x-4.0", "mellum"), _PLAIN),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"), _DIGITS),
    "minerva-7b": _DIGITS,
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"), _LLAMA3),
    **dict.fromkeys(("smaug-bpe", "dbrx", "chatglm-bpe"), Splitting((LLAMA3,))),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN2),
    **dict.fromkeys(("stablelm2", "hunyuan", "megrez"), Splitting((QWEN2,))),
    "qwen35": Splitting((QWEN35,), compose=True),
    "tekken": Splitting((_cased("", r"\p{N}"),), whole_words_first=True, add_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4"), _GPT4O),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense"), _DEEPSEEK_V3),
    "deepseek-coder": Splitting(DEEPSEEK_CODER),
    "falcon": Splitting(FALCON),
    "bloom": Splitting((BLOOM,)),
}
