"""What torch says of a text, without ever holding what it says of the whole text.

Attention compares some queries at a time with all keys, and the output layer makes the logits of
some tokens at a time. Knows Transformers, not what the logits are compared with.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

TOKENS: Final = 256
"""Whose logits, and whose attention, are computed at once."""
INTERFACE: Final = "llmhost_eager_in_pieces"
"""The name under which our attention is registered with Transformers."""


def torch_logits(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """Logits float32 [S, V] of S tokens, from one forward pass without a cache."""
    return torch.cat([*logits_in_pieces(model, ids)])


@torch.no_grad()
def logits_in_pieces(model: PreTrainedModel, ids: Sequence[int]) -> Iterator[Tensor]:
    """Logits float32 [at most `TOKENS`, V] of a text's tokens, one piece after the other."""
    input_ids = torch.tensor([list(ids)])
    decoder = model.get_decoder()
    decoder = model.base_model if decoder is model else decoder
    seen: list[Any] = []
    with attention_in_pieces(model), _of_last_token(model), _watched(decoder, seen):
        model(input_ids=input_ids, use_cache=False)
    hidden: Tensor | None = getattr(seen[0], "last_hidden_state", None) if len(seen) == 1 else None
    if hidden is None:  # the model doesn't call its decoder as a whole
        with attention_in_pieces(model):
            logits: Tensor = model(input_ids=input_ids, use_cache=False).logits[0].float()
        yield from logits.split(TOKENS)
        return
    for start in range(0, len(ids), TOKENS):
        some = slice(start, start + TOKENS)
        # the rest of the model, of its decoder's results
        answer = type(seen[0])(last_hidden_state=hidden[:, some])
        with patch.object(decoder, "forward", lambda *_, answer=answer, **__: answer):
            yield model(input_ids=input_ids[:, some], use_cache=False).logits[0].float()


@contextmanager
def _of_last_token(model: PreTrainedModel) -> Iterator[None]:
    """Pass nothing but the last token on to the output layer."""
    head = model.get_output_embeddings()
    with head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, -1:],)):
        yield


@contextmanager
def _watched(module: nn.Module, seen: list[Any]) -> Iterator[None]:
    """Keep what a module returns."""
    with module.register_forward_hook(lambda _, __, output: seen.append(output)):
        yield


@contextmanager
def attention_in_pieces(model: PreTrainedModel) -> Iterator[None]:
    """Compute a model's eager attention for some queries at a time."""
    files = {type(module).__module__ for module in model.modules()}
    own = [sys.modules[f] for f in files if hasattr(sys.modules[f], "eager_attention_forward")]
    if len(own) != 1:
        yield
        return
    eager = own[0].eager_attention_forward

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kw: Any
    ) -> tuple[Tensor, None]:
        parts = []
        for start in range(0, query.shape[2], TOKENS):
            some = slice(start, start + TOKENS)
            seen = None if mask is None else mask[:, :, some]
            parts.append(eager(module, query[:, :, some], key, value, seen, **kw)[0])
        return torch.cat(parts, dim=1), None

    AttentionInterface.register(INTERFACE, attend)
    AttentionMaskInterface.register(INTERFACE, eager_mask)
    before = model.config._attn_implementation  # noqa: SLF001 - Transformers offers no other switch
    model.config._attn_implementation = INTERFACE  # noqa: SLF001
    try:
        yield
    finally:
        model.config._attn_implementation = before  # noqa: SLF001
