"""Apply what a GGUF file says of rotary scaling, which Transformers drops without a word.

A file says it in two ways: fields `rope.scaling.*`, which become the configuration's
`rope_scaling`, and a tensor of factors that each frequency is divided by, which is how converters
write Llama 3's scaling. `gguf_config` refuses what is not applied here.

Source: llama_model_loader and llama_model::load_hparams of llama.cpp for fields and defaults.
"""

from typing import Any, Final

import gguf
import torch

from export.errors import SourceUnusable
from export.file_checks import shown
from export.gguf_file import GgufFile

FACTORS: Final = "rope_freqs.weight"
"""The tensor of factors, float32 [rotary_dim / 2]."""
YARN_OPTIONS: Final = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}


def scale_by_fields(file: GgufFile, architecture: str, config: Any) -> None:
    """Give the configuration the scaling that the file's fields ask for, if any.

    Raises:
        SourceUnusable: YaRN without the context that it extends.
    """

    def field(name: str) -> Any:
        return file.fields.get(f"{architecture}.rope.{name}")

    # llama.cpp takes a factor without a type as linear; old converters wrote scale_linear.
    kind = field("scaling.type") or "linear"
    factor = field("scaling.factor") or field("scale_linear")
    if factor in (None, 0, 1) or kind not in ("linear", "yarn") or not _can_scale(config):
        return
    scaling = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        original = field("scaling.original_context_length")
        if type(original) is not int or original < 1:
            raise SourceUnusable(
                f"{file.path}: {architecture}.rope.scaling.original_context_length is "
                f"{shown(original)}, expected an int >= 1 beside the type 'yarn'"
            )
        scaling["original_max_position_embeddings"] = original
        for theirs, ours in YARN_OPTIONS.items():
            if field(f"scaling.{theirs}") is not None:
                scaling[ours] = field(f"scaling.{theirs}")
    config.rope_scaling = scaling


def scale_by_tensor(file: GgufFile, model: Any) -> None:
    """Divide the model's rotary frequencies by the file's factors, if it has any.

    Raises:
        SourceUnusable: the factors are not as many as the frequencies, or not above 0.
    """
    if FACTORS not in file.shapes:
        return
    stored = next(t for t in gguf.GGUFReader(file.path).tensors if t.name == FACTORS)
    factors = torch.tensor(stored.data).float().flatten()
    if not bool((factors > 0).all() and factors.isfinite().all()):
        raise SourceUnusable(f"{file.path}: {FACTORS} has values that are not above 0")
    rotary = [module for module in model.modules() if hasattr(module, "inv_freq")]
    for module in rotary:
        if module.inv_freq.shape != factors.shape:
            raise SourceUnusable(
                f"{file.path}: {FACTORS} has {len(factors)} values, "
                f"the model {len(module.inv_freq)} frequencies"
            )
        module.inv_freq = module.inv_freq / factors
    if not rotary:
        raise SourceUnusable(f"{file.path}: has {FACTORS}, the model no rotary frequencies")


def _can_scale(config: Any) -> bool:
    """Whether the model in torch reads `rope_scaling`; one that doesn't is refused."""
    return hasattr(config, "rope_scaling")
