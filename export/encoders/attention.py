"""MultiHeadAttention as torch sees it, so that a traced encoder has one attention node per layer.

Transformers' encoders call torch's `scaled_dot_product_attention`, which is replaced while a model
is traced. A model that computes attention by itself (MPNet, with its position bias) is traced as
it is. Knows nothing about models.

Source: com.microsoft.MultiHeadAttention in ONNX Runtime's ContribOperators.md.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional
from torch.onnx import symbolic_helper

_attend = functional.scaled_dot_product_attention


class MultiHeadAttention(torch.autograd.Function):
    """One attention layer; see the module docstring."""

    apply: ClassVar[Callable[..., Tensor]]

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes inputs by position
        _ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        num_heads: int,
        scale: float,
    ) -> Tensor:
        """Attend over [B, S, num_heads × head_dim], with a bias [B, 1, S, S] for each score."""
        q, k, v = (x.unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (query, key, value))
        attended: Tensor = _attend(q, k, v, attn_mask=bias, scale=scale)
        return attended.transpose(1, 2).flatten(2)

    @staticmethod
    def symbolic(  # noqa: PLR0917 - in forward's order
        g: Any, query: Any, key: Any, value: Any, bias: Any, num_heads: int, scale: float
    ) -> Any:
        """The node; its projection bias and padding mask are left out."""
        nothing = symbolic_helper._optional_input_placeholder_tensor(g)  # noqa: SLF001 - no public one
        output = g.op(
            "com.microsoft::MultiHeadAttention",
            query,
            key,
            value,
            nothing,
            nothing,
            nothing if bias is None else bias,
            num_heads_i=num_heads,
            scale_f=scale,
        )
        output.setType(query.type())
        return output


def attention(  # noqa: PLR0917 - torch's signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Stand in for torch's function, of [B, heads, S, head_dim]."""
    assert not dropout_p, "the model is to be evaluated"
    assert not is_causal, "encoders pass a mask"
    assert not enable_gqa, "heads come in full where there is a mask"
    # while tracing, sizes are tensors
    num_heads, head_dim = int(query.shape[1]), int(query.shape[3])
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        lowest = torch.finfo(query.dtype).min
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, lowest)
    attended: Tensor = MultiHeadAttention.apply(
        query.transpose(1, 2).flatten(2),
        key.transpose(1, 2).flatten(2),
        value.transpose(1, 2).flatten(2),
        attn_mask,
        num_heads,
        head_dim**-0.5 if scale is None else float(scale),
    )
    split: Tensor = attended.unflatten(2, (num_heads, -1)).transpose(1, 2)
    return split


@contextmanager
def as_single_nodes() -> Iterator[None]:
    """Trace each attention inside the block as one node."""
    with patch.object(functional, "scaled_dot_product_attention", attention):
        yield
