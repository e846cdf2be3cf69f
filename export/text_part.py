"""The text model inside a model that reads more than text.

Its configuration is part of the whole one's, and its weights are among the whole one's under
another name: which one is found by comparing names. What the model reads besides is left where it
is. Knows Transformers, not ONNX.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

from export.errors import UnsupportedModel

BOTH_WAYS: Final = frozenset({"paligemma"})
"""Types whose own code has the text model do what it doesn't do alone; `python -m bench families`
compares all types with the whole models."""


class TextDecoder(PreTrainedModel, GenerationMixin):  # type: ignore[misc] # as in Transformers
    """A text model that Transformers has only without an output layer of its own."""

    base_model_prefix = "model"
    _tied_weights_keys = ["lm_head.weight"]  # type: ignore[assignment] # noqa: RUF012 - theirs

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        decoder: Any = MODEL_MAPPING[type(config)]
        self.model = decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        cache_position: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
    ) -> CausalLMOutputWithPast:
        """Logits [B, S, V] of tokens [B, S]."""
        hidden = self.model(
            input_ids=input_ids,
            position_ids=position_ids,
            cache_position=cache_position,
            past_key_values=past_key_values,
            use_cache=use_cache,
        ).last_hidden_state
        return CausalLMOutputWithPast(logits=self.lm_head(hidden))


def text_config(whole: PretrainedConfig) -> Any:
    """The configuration of the text model, or the whole one if it is one.

    Raises:
        UnsupportedModel: Transformers has no decoder for it.
    """
    config = whole.get_text_config()
    if config is whole:
        return whole
    if whole.model_type in BOTH_WAYS:
        raise UnsupportedModel(whole.model_type, "it reads prompts in both directions")
    if not _has_model(config):
        raise UnsupportedModel(
            whole.model_type, f"its text model, {config.model_type}, is none of its own"
        )
    if getattr(whole, "quantization_config", None) is not None:
        raise UnsupportedModel(
            whole.model_type, "it reads more than text, and its weights are quantised"
        )
    return config


def model_class(config: PretrainedConfig) -> Any:
    """The class of a text model."""
    return MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), TextDecoder)


def _has_model(config: PretrainedConfig) -> bool:
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or type(config) in MODEL_MAPPING


@contextmanager
def renaming(kind: Any, names: "Names | None") -> Iterator[dict[str, Any]]:
    """Have a class load weights under other names.

    Yields:
        What to tell `from_pretrained` besides.
    """
    if names is None:
        yield {}
        return
    # or Transformers takes weights that are stored under another prefix for those of a bare decoder
    with patch.object(kind, "base_model_prefix", ""):
        yield {"key_mapping": names.patterns}


@dataclass(frozen=True)
class Names:
    """What the weights of a text model are called."""

    patterns: Mapping[str, str]
    """Regular expressions, and what Transformers has to replace them by."""

    def of_others(self, stored: Iterable[str]) -> set[str]:
        """Names of weights that belong to other parts of the whole."""
        return {n for n in stored if not any(re.match(p, n) for p in self.patterns)}


def find_names(stored: Iterable[str], model: PreTrainedModel) -> Names:
    """Find a text model's weights among those of the whole.

    Raises:
        UnsupportedModel: they are not there.
    """
    names = set(stored)
    own = [name for name, _ in model.named_parameters()]
    ours = Counter(f"{name.partition('.')[0]}." for name in own).most_common(1)[0][0]
    wanted = [name.removeprefix(ours) for name in own if name.startswith(ours)]
    candidates = {name.removesuffix(wanted[0]) for name in names if name.endswith(wanted[0])}
    found = {prefix: sum(prefix + name in names for name in wanted) for prefix in candidates}
    theirs = max(found, key=lambda prefix: found[prefix], default="")
    if found.get(theirs, 0) < len(wanted) / 2:
        raise UnsupportedModel(
            model.config.model_type, "its weights are not found among those of the whole model"
        )
    patterns = {f"^{re.escape(theirs)}": ours}
    for head in own:
        if not head.startswith(ours):
            heads = [n for n in names if n.endswith(head) and not n.startswith(theirs)]
            patterns |= {f"^{re.escape(name)}$": head for name in heads}
    return Names(patterns)
