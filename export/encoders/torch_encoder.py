"""Load an encoder into torch, with its pooling behind it, as one module of the server's inputs.

What a checkpoint lacks is refused by name, for Transformers would make it up. Knows Transformers
and sentence-transformers' folders; not ONNX.
"""

import sys
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from export.config_checks import check_sizes, refuse_own_code
from export.encoders.families import written_here
from export.encoders.recipe import Dense, Recipe
from export.errors import SourceUnusable, UnsupportedModel
from export.file_checks import refuse_stand_in, refusing, shown
from export.folder import WEIGHTS, weight_shapes
from export.source import ModelSource
from export.torch_model import check_room, refuse_names

UNUSED: Final = ("pooler.", "cls.", "lm_head.", "classifier.", "head.", "decoder.", "vocab_")
"""Beginnings of weights for other tasks, which a checkpoint may bring beside the encoder's."""
BUFFERS: Final = (".position_ids", ".token_type_ids", ".inv_freq")
"""Ends of what was stored with the weights once and is computed now."""
LOWEST: Final = torch.finfo(torch.float32).min


class TorchEncoder(nn.Module):
    """`input_ids`, `lengths` and perhaps `token_type_ids` in, `vectors` out; see app's manifest."""

    def __init__(self, model: PreTrainedModel, recipe: Recipe, dense: list[nn.Linear]) -> None:
        super().__init__()
        self.model = model
        self.dense = nn.ModuleList(dense)
        self._recipe = recipe
        self._causal = is_causal(model)

    def forward(
        self, input_ids: Tensor, lengths: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Make a vector of each row, or its score."""
        steps = torch.arange(input_ids.shape[1])
        real = steps[None] < lengths[:, None]
        given = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        mask: Tensor = real.to(torch.int64)
        if self._causal:  # Transformers builds its own with operators that can't be traced
            seen = real[:, None, None, :] & (steps[None, :] <= steps[:, None])[None, None]
            mask = torch.zeros(seen.shape).masked_fill(~seen, LOWEST)
            given["use_cache"] = False  # type: ignore[assignment]
        output = self.model(input_ids=input_ids, attention_mask=mask, **given)
        if not self._recipe.pooling:
            scores: Tensor = output.logits
            return scores.float()
        tokens = output.last_hidden_state.float()
        vectors = torch.cat([pool(tokens, real, lengths, how) for how in self._recipe.pooling], -1)
        for layer, told in zip(self.dense, self._recipe.dense, strict=True):
            vectors = layer(vectors)
            if told.activation:
                vectors = getattr(torch, told.activation, functional.gelu)(vectors)
        return functional.normalize(vectors, dim=-1) if self._recipe.normalised else vectors


def pool(tokens: Tensor, real: Tensor, lengths: Tensor, how: str) -> Tensor:
    """Make one vector of a row's tokens [B, S, H], of which `real` [B, S] count."""
    weights = real[..., None].to(tokens.dtype)
    if how == "cls":
        return tokens[:, 0]
    if how == "lasttoken":
        last = (lengths.to(torch.int64) - 1)[:, None, None].expand(-1, 1, tokens.shape[2])
        return tokens.gather(1, last)[:, 0]
    if how == "max":
        return tokens.masked_fill(~real[..., None], LOWEST).amax(1)
    if how == "weightedmean":
        weights = weights * torch.arange(1, tokens.shape[1] + 1)[None, :, None]
    total = (tokens * weights).sum(1)
    count = weights.sum(1)
    return total / (count.sqrt() if how == "mean_sqrt_len_tokens" else count)


def load_encoder(source: ModelSource, recipe: Recipe) -> TorchEncoder:
    """Load a model and what is behind it.

    Raises:
        UnsupportedModel: Transformers has no such model, or it can't be expressed.
        SourceUnusable: the weights can't be read, are not those of the configuration, or are not
            finite.
    """
    folder = Path(source.weights)
    config, made_by = _configured(source, folder, scoring=recipe.pooling == ())
    check_sizes(source, config)
    if recipe.pooling == () and config.num_labels != 1:
        raise UnsupportedModel(
            config.model_type, f"it has {config.num_labels} labels, a reranker has 1"
        )
    if hasattr(config, "reference_compile"):
        config.reference_compile = False  # ModernBERT would compile itself
    shapes = weight_shapes(folder)
    if shapes is not None:
        check_room(source, config, shapes, lambda: _made_by(made_by, config))
    with refusing(source.described):
        loaded: Any = made_by.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation="eager" if _has_own_attention(config) else "sdpa",
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported by name below, not in a traceback
        )
    model, info = loaded
    missing = {name for name in info["missing_keys"] if recipe.pooling == () or not _pools(name)}
    refuse_names(source, "lack", missing, "which the model needs")
    unused = {
        name
        for name in info["unexpected_keys"]
        if not name.startswith(UNUSED) and not name.endswith(BUFFERS)
    }
    refuse_names(source, "have", unused, "which the model doesn't use")
    for name in info["mismatched_keys"]:
        wanted = [*model.state_dict()[name].shape]
        raise SourceUnusable(f"{source.described}: {name} has another size, expected {wanted}")
    _refuse_windows(config, model)
    dense = [_load_dense(folder / told.folder, told) for told in recipe.dense]
    encoder = TorchEncoder(model, recipe, dense).eval()
    for name, tensor in encoder.named_parameters():
        if not bool(tensor.isfinite().all()):
            raise SourceUnusable(f"{source.described}: {name} has values that are not finite")
    return encoder


def _configured(source: ModelSource, folder: Path, *, scoring: bool) -> tuple[Any, Any]:
    """A model's configuration, and the class that loads a model of it."""
    if found := written_here(folder, scoring=scoring):
        return found
    refuse_own_code(folder)
    with refusing(source.described):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return config, AutoModelForSequenceClassification if scoring else AutoModel


def _made_by(kind: Any, config: Any) -> PreTrainedModel:
    """A model without its weights, of a class or of Transformers' choice of one."""
    written_out = issubclass(kind, PreTrainedModel)
    made: Any = kind(config) if written_out else kind.from_config(config, trust_remote_code=False)
    return cast("PreTrainedModel", made)


def is_causal(model: PreTrainedModel) -> bool:
    """Whether a model is a decoder, whose tokens see those before them alone."""
    return hasattr(sys.modules[type(model).__module__], "create_causal_mask")


def _has_own_attention(config: Any) -> bool:
    return bool(config.model_type == "mpnet")


def _pools(name: str) -> bool:
    return ".pooler." in f".{name}"


def _refuse_windows(config: Any, model: PreTrainedModel) -> None:
    layers = getattr(config, "layer_types", None) or []
    if is_causal(model) and any(kind != "full_attention" for kind in layers):
        raise UnsupportedModel(
            config.model_type, "it is a decoder with windows, which make no vectors here"
        )


def _load_dense(folder: Path, told: Dense) -> nn.Linear:
    path = folder / WEIGHTS
    refuse_stand_in(path)
    with refusing(str(path)):
        stored = {n.removeprefix("linear."): t.float() for n, t in load_file(path).items()}
    with torch.device("meta"):  # its sizes are the configuration's until they are compared
        layer = nn.Linear(told.inputs, told.outputs, bias=told.bias)
    wanted = {name: [*parameter.shape] for name, parameter in layer.named_parameters()}
    found = {name: [*tensor.shape] for name, tensor in stored.items()}
    if found != wanted:
        raise SourceUnusable(f"{path} has {shown(found)}, expected {wanted}")
    layer.load_state_dict(stored, assign=True)
    return layer
