"""How much text one token can stand for at most, so that a huge text is refused unread.

Tokenizing 10 MB takes seconds and hundreds of megabytes; a text that is longer than the context
times the longest token can't fit, whatever it says.
"""

import json
from typing import Any, Final

from tokenizers import Tokenizer

# Those that leave at least a character for each one: what drops, joins or shortens text isn't here.
_KEEPING_NORMALIZERS: Final = {"Prepend", "Replace", "Sequence"}
_KEEPING_PRE_TOKENIZERS: Final = {"ByteLevel", "Digits", "Metaspace", "Sequence", "Split"}


def longest_token(tokenizer: Tokenizer) -> int | None:
    """Find how many characters of a text one token can stand for.

    Returns:
        None: any number, for this tokenizer drops or joins text.
    """
    description = json.loads(tokenizer.to_str())
    added = description.get("added_tokens", [])
    if not (
        _keeps(description.get("normalizer"), "normalizers", _KEEPING_NORMALIZERS)
        and _keeps(description.get("pre_tokenizer"), "pretokenizers", _KEEPING_PRE_TOKENIZERS)
        and _spells_everything(description)
        # such a token takes in all the white space beside it
        and not any(token["lstrip"] or token["rstrip"] for token in added)
    ):
        return None
    return max(map(len, tokenizer.get_vocab(with_added_tokens=True)), default=None)


def _keeps(part: dict[str, Any] | None, inner: str, keeping: set[str]) -> bool:
    """Whether a step leaves at least a character for each character."""
    if part is None:
        return True
    if part["type"] not in keeping or part.get("behavior") == "Removed":
        return False
    if part["type"] == "Replace":
        pattern = part["pattern"].get("String")
        return pattern is not None and len(pattern) <= len(part["content"])
    return all(_keeps(step, inner, keeping) for step in part.get(inner, ()))


def _spells_everything(description: dict[str, Any]) -> bool:
    """Whether no run of unknown characters becomes one token."""
    model = description["model"]
    if model.get("type") not in ("BPE", None):
        return False
    return "ByteLevel" in json.dumps(description.get("pre_tokenizer")) or bool(
        model.get("byte_fallback")
    )
