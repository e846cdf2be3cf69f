"""Load a source into torch, and refuse it unless it is exactly the model that the source describes.

Transformers fills in what a checkpoint lacks and drops what a configuration forgets, and only logs
it; the comparison of the graph with torch can't notice, for both are the same wrong model. Knows
Transformers, not ONNX.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map
from transformers.modeling_utils import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from export.adapter import merge
from export.errors import SourceUnusable, UnsupportedModel
from export.file_checks import read_object, refusing, shown
from export.folder import CONFIG, num_elements, weight_shapes
from export.gguf_config import refuse_other_fields, refuse_other_kinds
from export.gguf_file import read_gguf
from export.gguf_rope import FACTORS, scale_by_fields, scale_by_tensor
from export.observe import refuse_by_config
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
POSITIVE: Final = (
    *("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon"),
    *("rope_theta", "rope_local_base_freq", "partial_rotary_factor", "rotary_pct"),
)
"""Numbers that Transformers doesn't look at before a model computes with them."""
MAX_BUFFER_BYTES: Final = 1 << 32
"""All buffers together; GPT-2's masks have layers × context² bytes."""
NAMES_SHOWN: Final = 3


def load_model(source: ModelSource, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a model into torch.

    Raises:
        UnsupportedModel: Transformers has no causal language model of this kind.
        SourceUnusable: the weights can't be read, are not those of the configuration, or are
            not finite; or a special token is outside the vocabulary.
    """
    folder = Path(source.weights)
    file = None if source.gguf is None else read_gguf(folder / source.gguf)
    # An absolute path: Transformers would take a file of that name in the current directory.
    gguf = {} if file is None else {"gguf_file": str(file.path.absolute())}
    shapes = weight_shapes(folder) if file is None else file.shapes
    described = _described(source, folder)
    with refusing(described):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **gguf)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedModel(config.model_type, "it is not a decoder-only language model")
    refuse_by_config(config)
    check_sizes(source, config)
    _check_tokens(source, config)
    if file is not None:
        scale_by_fields(file, refuse_other_kinds(file), config)
        refuse_other_fields(file, config)
    if shapes is not None and getattr(config, "quantization_config", None) is None:
        _check_room(source, config, shapes)
    with refusing(described):
        # Eager attention is the reference: faster implementations omit softcapping (Gemma 2).
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation="eager",
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported by name below, not in a traceback
            **gguf,
        )
    model, info = loaded
    _refuse_other_weights(source, model, info, {} if shapes is None else shapes)
    if file is not None:
        scale_by_tensor(file, model)
    if source.adapter is not None:
        merge(Path(source.adapter), model)
    # A GGUF's output layer is loaded in float32 whatever dtype says.
    model = model.to(dtype).eval()
    for name, tensor in model.named_parameters():
        if not bool(tensor.isfinite().all()):
            raise SourceUnusable(f"{source.described}: {name} has values that are not finite")
    model.config._name_or_path = ""  # noqa: SLF001 - or Optimum looks there for a tokenizer
    return cast("PreTrainedModel", model)


def _described(source: ModelSource, folder: Path) -> str:
    """The source, and how its weights are quantised, which another library may have to know."""
    if source.gguf is not None:
        return source.described
    quantised = read_object(folder / CONFIG).get("quantization_config")
    if quantised is None:
        return source.described
    method = quantised.get("quant_method") if isinstance(quantised, dict) else None
    if not isinstance(method, str) or method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise SourceUnusable(
            f"{source.described}: quantization_config.quant_method is {shown(method)}, which "
            "Transformers doesn't know"
        )
    return f"{source.described}: quantization_config.quant_method is {shown(method)}"


def _refuse_other_weights(
    source: ModelSource, model: Any, info: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse weights that are not those of the model, in name or shape.

    Args:
        source: where they come from.
        model: what they were loaded into.
        info: what Transformers says about that.
        shapes: the weights by the names that they are stored under; empty: not known.
    """
    stored: dict[str, str] = {}
    if source.gguf is not None:
        stored = {ours: theirs for theirs, ours in get_gguf_hf_weights_map(model).items()}
        unread = shapes.keys() - {"output.weight", FACTORS, *stored.values()}
        refuse_names(source, "have", unread, "which the model doesn't use")
    refuse_names(source, "lack", info["missing_keys"], "which the model needs")
    refuse_names(source, "have", info["unexpected_keys"], "which the model doesn't use")
    for name in info["mismatched_keys"]:
        found, wanted = shapes.get(stored.get(name, name)), model.state_dict()[name].shape
        raise SourceUnusable(
            f"{source.described}: {name} has {shown(found and list(found))}, expected {[*wanted]}"
        )


def refuse_names(source: ModelSource, verb: str, names: Iterable[str], what: str) -> None:
    """Refuse a source if there are such weights.

    Raises:
        SourceUnusable: with the first of their names.
    """
    found = sorted(names)
    if found:
        some = ", ".join(found[:NAMES_SHOWN])
        more = f" and {len(found) - NAMES_SHOWN} more" if len(found) > NAMES_SHOWN else ""
        raise SourceUnusable(f"{source.described}: its weights {verb} {some}{more}, {what}")


def check_sizes(source: ModelSource, config: Any) -> None:
    """Bound what is allocated, or computed with, before there is a model.

    Raises:
        SourceUnusable: with the field and its value.
    """
    for name, limit in LIMITS.items():
        value = getattr(config, name, None)
        if value is not None and (type(value) is not int or not 1 <= value <= limit):
            written = config.attribute_map.get(name, name)
            raise SourceUnusable(
                f"{source.described}: {written} is {shown(value)}, expected an int of 1 … {limit}"
            )
    for name in POSITIVE:
        value = getattr(config, name, None)
        if value is not None and not (type(value) in (int, float) and 0 < value < math.inf):
            raise SourceUnusable(
                f"{source.described}: {name} is {shown(value)}, expected a number above 0"
            )


def _check_tokens(source: ModelSource, config: Any) -> None:
    """Refuse special tokens that have no row in the embedding."""
    rows = config.vocab_size
    ids = {"eos_token_id": source.eos_ids, "bos_token_id": (source.bos_id,)}
    for name, values in ids.items():
        for value in values:
            if value is not None and not 0 <= value < rows:
                raise SourceUnusable(
                    f"{source.described}: {name} is {value}, the vocabulary has {rows} tokens"
                )


def _check_room(source: ModelSource, config: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a configuration that asks for far more than the weights hold, before allocating it."""
    layers, elements = config.num_hidden_layers, num_elements(shapes)
    if layers is None:
        raise SourceUnusable(f"{source.described}: num_hidden_layers is null, expected an int")
    if layers > len(shapes):
        raise SourceUnusable(
            f"{source.described}: num_hidden_layers is {layers}, its weights are {len(shapes)} "
            "tensors"
        )
    with refusing(source.described):
        try:
            with no_init_weights(), torch.device("meta"):
                skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        except NotImplementedError:
            return  # its code computes with weights while the model is made (Apertus)
    asked = sum(parameter.numel() for parameter in skeleton.parameters())
    if asked > 2 * elements:
        raise SourceUnusable(
            f"{source.described}: the configuration asks for {asked} weights, there are {elements}"
        )
    held = sum(buffer.numel() * buffer.element_size() for buffer in skeleton.buffers())
    if held > MAX_BUFFER_BYTES:
        raise SourceUnusable(
            f"{source.described}: the model's buffers take {held} bytes, "
            f"the limit is {MAX_BUFFER_BYTES}"
        )
