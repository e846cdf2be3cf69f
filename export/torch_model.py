"""Load a source into torch, and refuse it unless it is exactly the model that the source describes.

Transformers fills in what a checkpoint lacks and drops what a configuration forgets, and only logs
it; the comparison of the graph with torch can't notice, for both are the same wrong model. Knows
Transformers, not ONNX.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map
from transformers.modeling_utils import no_init_weights
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.pytorch_utils import Conv1D

from export.adapter import merge
from export.checkpoints.reading import Checkpoint, read_checkpoint
from export.config_checks import check_sizes, check_tokens, refuse_own_code
from export.errors import SourceUnusable, UnsupportedModel
from export.file_checks import refusing, shown
from export.folder import num_elements, weight_shapes
from export.gguf_config import refuse_other_fields, refuse_other_kinds
from export.gguf_file import GgufFile, read_gguf
from export.gguf_names import names_made_once
from export.gguf_rope import FACTORS, scale_by_fields, scale_by_tensor
from export.mxfp4 import mxfp4_into
from export.observe import refuse_by_config
from export.source import ModelSource
from export.text_part import find_names, model_class, renaming, text_config
from export.tied_weights import refuse_untied
from export.weight_file import WeightFile, loading_into, release_behind_modules

MAX_BUFFER_BYTES: Final = 1 << 32
"""All buffers together; GPT-2's masks have layers × context² bytes."""
NAMES_SHOWN: Final = 3
PART: Final = 1 << 22
"""Numbers that are looked at together."""


@dataclass(frozen=True)
class _Stored:
    """What a source's weights are read from."""

    folder: Path
    file: GgufFile | None
    checkpoint: Checkpoint | None
    """If the folder's weights are quantised."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]] | None:
        """Of the weights by name; None if they are pickled."""
        if self.checkpoint is not None:
            return self.checkpoint.shapes
        return weight_shapes(self.folder) if self.file is None else self.file.shapes

    @property
    def gguf(self) -> dict[str, str]:
        """How Transformers is told of the file."""
        # An absolute path: Transformers would take a file of that name in the current directory.
        return {} if self.file is None else {"gguf_file": str(self.file.path.absolute())}

    @property
    def weights(self) -> dict[str, Any]:
        """How it is told of the weights."""
        if self.checkpoint is not None:
            return {"pretrained_model_name_or_path": None, "state_dict": self.checkpoint.state}
        return {"pretrained_model_name_or_path": self.folder, **self.gguf}


@names_made_once()
def load_model(
    source: ModelSource, weights: WeightFile, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Load a model into torch, its weights into a file.

    Raises:
        NoRoom: they don't fit there.
        UnsupportedModel: Transformers has no causal language model of this kind.
        SourceUnusable: the weights can't be read, are not those of the configuration, or are
            not finite; or a special token is outside the vocabulary.
    """
    folder = Path(source.weights)
    if source.gguf is not None:
        stored = _Stored(folder, read_gguf(folder / source.gguf), None)
    else:
        stored = _Stored(folder, None, read_checkpoint(folder))
        refuse_own_code(folder)
    whole = _read_config(source, stored)
    config = _text_config(stored, whole)
    _check_config(source, stored, whole, config)
    shapes, skeleton, names = stored.shapes, None, None
    if shapes is not None and getattr(config, "quantization_config", None) is None:
        skeleton = check_room(source, config, shapes, lambda: model_class(config)(config))
    if stored.checkpoint is not None and skeleton is not None:
        _refuse_turned(skeleton)
    if config is not whole:
        if shapes is None or skeleton is None:
            raise UnsupportedModel(whole.model_type, "its text model is in pickled weights")
        names = find_names(shapes, skeleton)
    kind = model_class(config)
    with (
        refusing(source.described),
        loading_into(weights) as by_name,
        mxfp4_into(weights),
        renaming(kind, names) as renamed,
    ):
        # Eager attention is the reference: faster implementations omit softcapping (Gemma 2).
        loaded: Any = kind.from_pretrained(
            config=config,
            dtype=dtype,
            attn_implementation="eager",
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported by name below, not in a traceback
            **stored.weights,
            **renamed,
        )
    model, info = loaded
    if names is not None:
        info["unexpected_keys"] = set(info["unexpected_keys"]) - names.of_others(shapes or {})
    if stored.checkpoint is not None:
        unused = {n for n in info["unexpected_keys"] if not stored.checkpoint.is_nothing(n)}
        info["unexpected_keys"] = unused
    _refuse_other_weights(source, model, info, {} if shapes is None else shapes)
    refuse_untied(source.described, model, by_name, weights)
    if stored.file is not None:
        scale_by_tensor(stored.file, model)
    if source.adapter is not None:
        merge(Path(source.adapter), model)
    # A GGUF's output layer is loaded in float32 whatever dtype says.
    model = model.to(dtype).eval()
    for name, tensor in model.named_parameters():
        if not all(bool(part.isfinite().all()) for part in tensor.detach().flatten().split(PART)):
            raise SourceUnusable(f"{source.described}: {name} has values that are not finite")
        weights.release()
    release_behind_modules(model, weights)
    model.config._name_or_path = ""  # noqa: SLF001 - or Optimum looks there for a tokenizer
    return cast("PreTrainedModel", model)


def _read_config(source: ModelSource, stored: _Stored) -> Any:
    """The configuration of the whole model, with weights that are floats once they are read."""
    with refusing(source.described):
        config = AutoConfig.from_pretrained(stored.folder, trust_remote_code=False, **stored.gguf)
    if stored.checkpoint is not None and hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _text_config(stored: _Stored, whole: Any) -> Any:
    """The configuration of the text model, likewise; the whole one if it is one."""
    config = text_config(whole)
    if config is not whole and getattr(config, "quantization_config", None) is not None:
        if stored.checkpoint is None:
            raise UnsupportedModel(whole.model_type, "the weights of its text model are quantised")
        del config.quantization_config
    return config


def _check_config(source: ModelSource, stored: _Stored, whole: Any, config: Any) -> None:
    """Refuse what the configuration alone tells to be none of ours."""
    if config is whole and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedModel(config.model_type, "it is not a decoder-only language model")
    refuse_by_config(config)
    check_sizes(source, config)
    check_tokens(source, config)
    if stored.file is not None:
        scale_by_fields(stored.file, refuse_other_kinds(stored.file), config)
        refuse_other_fields(stored.file, config)


def _refuse_turned(model: PreTrainedModel) -> None:
    """Refuse matrices [K, N]: of square ones nothing would say that they are the other way round.

    Raises:
        UnsupportedModel: a layer of the model has one (GPT-2).
    """
    if any(isinstance(module, Conv1D) for module in model.modules()):
        raise UnsupportedModel(
            model.config.model_type, "its weights are quantised, and its layers transpose them"
        )


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


def check_room(
    source: ModelSource,
    config: Any,
    shapes: Mapping[str, tuple[int, ...]],
    make: Callable[[], PreTrainedModel],
) -> PreTrainedModel | None:
    """Refuse a configuration that asks for far more than the weights hold, before allocating it.

    Args:
        source: where they come from.
        config: what it asks for.
        shapes: of the weights.
        make: makes the model of that configuration.

    Returns:
        The model without numbers, unless its code computes with weights while it is made (Apertus).

    Raises:
        SourceUnusable: with both numbers.
    """
    layers, elements = getattr(config, "num_hidden_layers", None), num_elements(shapes)
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
                skeleton = make()
        except NotImplementedError:
            return None
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
    return skeleton
