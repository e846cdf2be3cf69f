"""How far attention reaches: the context, and the windows of layers.

Decides by what masks do, not by what configurations say of them.
"""

from typing import Any, Final

import torch
from torch import Tensor

from export.errors import UnsupportedModel

PROBE_TOKENS: Final = 23
"""A prime, as no dimension of a model is."""
MAX_PROBE_TOKENS: Final = 1031
MAX_MASK_TOKENS: Final = 1 << 17


class NotPlain(Exception):
    """The attention is of a kind that the operator doesn't compute; says what it does."""


def context_length(config: Any) -> int:
    """The longest sequence, in tokens, that the graph may be used for.

    Long-context variants that change their frequencies beyond the original length (Phi-3
    long) keep the short ones here: one cache can't hold keys of both kinds.

    Raises:
        UnsupportedModel: the configuration names no length.
    """
    scaling = getattr(config, "rope_scaling", None) or {}
    if scaling.get("rope_type", scaling.get("type")) == "longrope":
        original = "original_max_position_embeddings"
        shorter = getattr(config, original, None) or scaling.get(original)
        if shorter is None:
            raise UnsupportedModel(config.model_type, f"its longrope scaling has no {original}")
        return int(shorter)
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        if getattr(config, name, None):
            return _plain(config, int(getattr(config, name)))
    raise UnsupportedModel(config.model_type, "its configuration has no context length")


def _plain(config: Any, tokens: int) -> int:
    """How many of `tokens` plain attention is right for.

    In Llama 4 no token attends beyond its chunk, and queries are scaled by their position, but not
    in the first chunk.
    """
    chunk = getattr(config, "attention_chunk_size", None)
    tokens = tokens if chunk is None else min(tokens, int(chunk))
    scaled = getattr(config, "attn_temperature_tuning", False)
    return min(tokens, int(config.floor_scale) - 1) if scaled else tokens


def longer_than_windows(config: Any) -> int:
    """Tokens enough to see any attention window that a configuration names."""
    context = context_length(config)
    named = [n for name, n in config.to_dict().items() if "window" in name and type(n) is int]
    longest = max((n for n in named if n < context), default=0)
    return min(longest + PROBE_TOKENS, MAX_PROBE_TOKENS, context)


def window_of_mask(mask_function: Any, context: int) -> int | None:
    """How many of the latest tokens one of Transformers' mask functions shows; None: all.

    Raises:
        NotPlain: it shows others.
    """
    last = min(context, MAX_MASK_TOKENS) - 1
    keys = torch.arange(last + 1)
    widths = {}
    for query in (last // 2, last - 1, last):
        seen = mask_function(0, 0, torch.tensor(query), keys).expand(last + 1)
        widths[query] = int(seen.sum())
        tail = seen[query + 1 - widths[query] : query + 1]
        if widths[query] > query + 1 or not bool(tail.all()):
            raise NotPlain("its attention mask is not a window")
    if all(width == min(query + 1, widths[last]) for query, width in widths.items()):
        return None if widths[last] == last + 1 else widths[last]
    raise NotPlain("its attention window changes with position")


def window_of_scores(seen: Tensor) -> int | None:
    """How many of the latest tokens are seen; None: all of them.

    Args:
        seen: bool [B, heads, S, S].

    Raises:
        NotPlain: others are.
    """
    tokens = seen.shape[-1]
    position = torch.arange(tokens)
    distance = position[:, None] - position[None]
    width = int(seen[0, 0, -1].sum())
    if bool((seen & (distance < 0)).any()):
        raise NotPlain("its attention sees later tokens")
    if not bool((seen == ((distance >= 0) & (distance < width))).all()):
        raise NotPlain("its attention mask is not a window")
    return None if width == tokens else width
