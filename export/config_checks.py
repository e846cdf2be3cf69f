"""Refuse a configuration that no model could be made of, or only with far too much memory.

Transformers allocates what a configuration says before it looks at any weight. Knows the fields'
names, not what models do with them.
"""

import math
from pathlib import Path
from typing import Any, Final

from transformers import CONFIG_MAPPING, __version__

from export.errors import SourceUnusable, UnsupportedModel
from export.file_checks import read_object, shown
from export.folder import CONFIG
from export.source import ModelSource

MAX_CONTEXT: Final = 1 << 22
"""Tokens; the longest that models are trained for. Rotary tables are as long as the context."""
LIMITS: Final = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 24,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 16,
    "num_key_value_heads": 1 << 16,
    "head_dim": 1 << 16,
    "max_position_embeddings": MAX_CONTEXT,
}
"""The largest value of each, far above any model's: what is allocated grows with them."""
EXPERTS: Final = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
"""Names of how many experts a layer has; 0 or none: it has no mixture."""
MAX_EXPERTS: Final = 1 << 12
POSITIVE: Final = (
    *("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon"),
    *("rope_theta", "rope_local_base_freq", "partial_rotary_factor", "rotary_pct"),
)
"""Numbers that Transformers doesn't look at before a model computes with them."""


def refuse_own_code(folder: Path) -> None:
    """Refuse a model that is Python of its makers' alone, for that is never executed.

    Raises:
        UnsupportedModel: Transformers has no model of this name, and the folder names code for it.
        SourceUnusable: its configuration can't be read.
    """
    config = read_object(folder / CONFIG)
    kind = config.get("model_type")
    if config.get("auto_map") and not (isinstance(kind, str) and kind in CONFIG_MAPPING):
        raise UnsupportedModel(
            shown(kind),
            "it is code of its makers', which is never executed, "
            f"and Transformers {__version__} has no such model",
        )


def check_sizes(source: ModelSource, config: Any) -> None:
    """Bound what is allocated, or computed with, before there is a model.

    Raises:
        SourceUnusable: with the field and its value.
    """
    for name, limit in LIMITS.items():
        value = getattr(config, name, None)
        values = value if isinstance(value, list) else [value]  # of each layer (Gemma 3n)
        if value is not None and any(type(n) is not int or not 1 <= n <= limit for n in values):
            written = config.attribute_map.get(name, name)
            raise SourceUnusable(
                f"{source.described}: {written} is {shown(value)}, expected an int of 1 … {limit}"
            )
    for name in EXPERTS:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > MAX_EXPERTS:
            raise SourceUnusable(
                f"{source.described}: {name} is {shown(value)}, expected at most {MAX_EXPERTS}"
            )
    for name in POSITIVE:
        value = getattr(config, name, None)
        if value is not None and not (type(value) in (int, float) and 0 < value < math.inf):
            raise SourceUnusable(
                f"{source.described}: {name} is {shown(value)}, expected a number above 0"
            )


def check_tokens(source: ModelSource, config: Any) -> None:
    """Refuse special tokens that have no row in the embedding.

    Raises:
        SourceUnusable: with the token.
    """
    rows = config.vocab_size
    ids = {"eos_token_id": source.eos_ids, "bos_token_id": (source.bos_id,)}
    for name, values in ids.items():
        for value in values:
            if value is not None and not 0 <= value < rows:
                raise SourceUnusable(
                    f"{source.described}: {name} is {value}, the vocabulary has {rows} tokens"
                )
