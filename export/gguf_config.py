"""Refuse a GGUF file whose metadata says something that its model in torch doesn't do.

Transformers reads the fields that it has a name for and drops the others without a word: a file
with scaled rotary frequencies becomes another model, which the comparison with torch can't notice,
because torch has that other model too. So every field of the architecture must agree with the
configuration that was made of it, or be known to change nothing.

Source: gguf-py/gguf/constants.py of llama.cpp for the names, src/llama-model.cpp for the defaults.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from export.errors import SourceUnusable
from export.file_checks import shown
from export.gguf_file import GgufFile

MODEL_TYPE: Final = "model"
"""`general.type` of a file that holds a model; others hold adapters and projectors."""
REQUIRED: Final = (
    *("context_length", "embedding_length", "block_count", "feed_forward_length"),
    "attention.head_count",
)
"""Without one of these llama.cpp refuses a file, where Transformers puts in a number of its own."""
EPSILONS: Final = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
"""One of these is required too."""
IGNORED: Final = frozenset({"tensor_data_layout", "pooling_type", "rope.scaling.finetuned"})
"""What changes no logit: how a converter stored rows, what embeddings are made of, and how the
model came to its rotary scaling."""


def refuse_other_kinds(file: GgufFile) -> str:
    """The file's architecture.

    Raises:
        SourceUnusable: the file holds no model, or lacks a number that it needs.
    """
    kind = file.fields.get("general.type", MODEL_TYPE)
    if kind != MODEL_TYPE:
        raise _refusal(file, f"general.type is {shown(kind)}, expected {MODEL_TYPE!r}")
    architecture = file.fields.get("general.architecture")
    if not isinstance(architecture, str):
        raise _refusal(file, f"general.architecture is {shown(architecture)}, expected a text")
    for name in REQUIRED:
        value = file.fields.get(f"{architecture}.{name}")
        if type(value) is not int or value < 1:
            raise _refusal(file, f"{architecture}.{name} is {shown(value)}, expected an int >= 1")
    layers = file.fields[f"{architecture}.block_count"]
    if layers > len(file.shapes):
        held = f"the file holds {len(file.shapes)} tensors"
        raise _refusal(file, f"{architecture}.block_count is {layers}, but {held}")
    epsilons = [file.fields.get(f"{architecture}.{name}") for name in EPSILONS]
    if not any(isinstance(epsilon, float) for epsilon in epsilons):
        shown_epsilon = shown(next((e for e in epsilons if e is not None), None))
        raise _refusal(file, f"{architecture}.{EPSILONS[0]} is {shown_epsilon}, expected a number")
    return architecture


def refuse_other_fields(file: GgufFile, config: Any) -> None:
    """Compare every field of the architecture with Transformers' configuration.

    Raises:
        SourceUnusable: a field says something else than the configuration, or is unknown.
    """
    architecture = refuse_other_kinds(file)
    for field, value in file.fields.items():
        prefix, _, name = field.partition(".")
        if prefix != architecture or name in IGNORED or _changes_nothing(file, prefix, name):
            continue
        expected = EXPECTED[name](config) if name in EXPECTED else None
        if expected is None:
            raise _refusal(file, f"{field} is {shown(value)}, which is not supported")
        if not _equal(value, expected):
            raise _refusal(
                file, f"{field} is {shown(value)}, which is not supported beside {shown(expected)}"
            )


def _changes_nothing(file: GgufFile, architecture: str, name: str) -> bool:
    """Whether a field has a value that is the same as not having it."""

    def field(name: str) -> Any:
        return file.fields.get(f"{architecture}.{name}")

    if name.startswith("rope.scaling."):
        kind, factor = field("rope.scaling.type"), field("rope.scaling.factor")
        unscaled = kind == "none" or (kind in (None, "linear") and factor in (None, 0, 1))
        return unscaled and field("rope.scaling.attn_factor") in (None, 1)
    if name == "attention.sliding_window":
        window = field(name)
        return isinstance(window, int) and (window == 0 or window >= field("context_length"))
    return False


def _refusal(file: GgufFile, what: str) -> SourceUnusable:
    return SourceUnusable(f"{file.path}: {what}")


def _equal(value: object, expected: object) -> bool:
    """Whether two values are the same number, up to float32, or the same text."""
    if isinstance(value, (int, float)) and isinstance(expected, (int, float)):
        return math.isclose(value, expected, rel_tol=1e-6)
    return value == expected


def _attribute(*names: str) -> Callable[[Any], Any]:
    """The first of these attributes that a configuration has."""
    return lambda config: next(
        (v for v in (getattr(config, name, None) for name in names) if v is not None), None
    )


def _head_dim(config: Any) -> Any:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _rotary_dim(config: Any) -> Any:
    share = _attribute("partial_rotary_factor", "rotary_pct")(config)
    return int(_head_dim(config) * (1.0 if share is None else share))


def _feed_forward(config: Any) -> Any:
    inner = _attribute("intermediate_size", "n_inner", "ffn_dim")(config)
    return 4 * config.hidden_size if inner is None else inner  # GPT-2's default


def _scaling(name: str, otherwise: Any = None) -> Callable[[Any], Any]:
    """A value of the configuration's rotary scaling; `otherwise` where that doesn't give one."""
    return lambda config: (getattr(config, "rope_scaling", None) or {}).get(name, otherwise)


def _window(config: Any) -> Any:
    """The sliding window; None where the model doesn't use one."""
    used = getattr(config, "use_sliding_window", True)
    return getattr(config, "sliding_window", None) if used else None


EXPECTED: Final[Mapping[str, Callable[[Any], Any]]] = {
    "vocab_size": _attribute("vocab_size"),
    "context_length": _attribute("max_position_embeddings"),
    "embedding_length": _attribute("hidden_size"),
    "block_count": _attribute("num_hidden_layers"),
    "feed_forward_length": _feed_forward,
    "attention.head_count": _attribute("num_attention_heads"),
    "attention.head_count_kv": _attribute("num_key_value_heads", "num_attention_heads"),
    "attention.key_length": _head_dim,
    "attention.value_length": _head_dim,
    "attention.layer_norm_rms_epsilon": _attribute("rms_norm_eps", "norm_eps", "layer_norm_eps"),
    "attention.layer_norm_epsilon": _attribute(
        "layer_norm_epsilon", "norm_epsilon", "layer_norm_eps"
    ),
    "attention.causal": lambda _: True,
    "attention.scale": lambda config: _head_dim(config) ** -0.5,
    "attention.sliding_window": _window,
    "attn_logit_softcapping": _attribute("attn_logit_softcapping"),
    "final_logit_softcapping": _attribute("final_logit_softcapping"),
    "use_parallel_residual": _attribute("use_parallel_residual"),
    "expert_count": lambda _: 0,
    "expert_used_count": lambda _: 0,
    "logit_scale": lambda config: getattr(config, "logit_scale", 1.0),
    "embedding_scale": lambda _: 1.0,
    "residual_scale": lambda _: 1.0,
    "rope.dimension_count": _rotary_dim,
    "rope.freq_base": _attribute("rope_theta"),
    "rope.freq_base_swa": _attribute("rope_local_base_freq"),
    "rope.scale_linear": _scaling("factor", 1.0),
    "rope.scaling.type": _scaling("rope_type"),
    "rope.scaling.factor": _scaling("factor"),
    "rope.scaling.original_context_length": _scaling("original_max_position_embeddings"),
    "rope.scaling.attn_factor": lambda _: 1.0,
    "rope.scaling.yarn_beta_fast": _scaling("beta_fast", 32.0),
    "rope.scaling.yarn_beta_slow": _scaling("beta_slow", 1.0),
}
"""What a field must say, given the configuration; None: nothing that it says is supported."""
