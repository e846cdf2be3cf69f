"""GroupQueryAttention as torch sees it, so that a traced model has one attention node per layer.

`GroupQueryAttention.apply` computes attention when torch runs it and becomes ONNX Runtime's
operator when the TorchScript exporter meets it. Both are made from one `Layer`, so comparing torch
with itself already tests the numbers that end up in the graph. Knows nothing about models:
`observe.py` finds the `Layer` of each.

Source: com.microsoft.GroupQueryAttention in ONNX Runtime's ContribOperators.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.onnx import symbolic_helper


@dataclass(frozen=True)
class RotaryTable:
    """A rotary embedding as two tables that the operator indexes by position."""

    cos: Tensor
    """float32 [context_length, rotary_dim / 2]."""
    sin: Tensor
    """float32, shaped like `cos`."""
    interleaved: bool
    """Pairs are (0, 1), (2, 3) … instead of (0, n/2), (1, n/2 + 1) …"""


@dataclass(frozen=True)
class Layer:
    """The shape of one attention layer, and what it does beyond plain causal attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    """Of queries and keys."""
    scale: float
    value_dim: int
    softcap: float = 0.0
    """Scores become softcap × tanh(score ÷ softcap); 0 leaves them unchanged."""
    window: int | None = None
    """A token attends to this many of the latest tokens, itself included; None: to all."""
    rotary: int | None = None
    """Index of the table that the operator applies; None: the graph rotates by itself, or nothing
    is rotated."""
    interleaved: bool = False
    """How that table pairs dimensions; see `RotaryTable`."""
    sinks: bool = False
    """Each head has a score that takes part in the softmax and belongs to no token."""
    slopes: tuple[float, ...] | None = None
    """How much more each head gives to a key than to the one before it (ALiBi)."""
    repeats: int = 1
    """The model's code has each head of keys and values this many times."""

    @property
    def least_dim(self) -> int:
        """What a head in the cache needs: the operator takes multiples of 8 alone."""
        return -(-max(self.head_dim + (self.slopes is not None), self.value_dim) // 8) * 8


def attend(
    query: Tensor, key: Tensor, value: Tensor, layer: Layer, sinks: Tensor | None = None
) -> Tensor:
    """Causal attention over new tokens on an empty cache.

    Args:
        query: [B, S, num_heads × head_dim], rotated.
        key: [B, S, num_kv_heads × head_dim], rotated.
        value: [B, S, num_kv_heads × value_dim].
        layer: gives head counts, scale, softcap, window and slopes.
        sinks: [num_heads], if the layer has them.

    Returns:
        [B, S, num_heads × value_dim].
    """
    groups = layer.num_heads // layer.num_kv_heads
    q = query.unflatten(-1, (layer.num_heads, layer.head_dim)).transpose(1, 2)
    k = key.unflatten(-1, (layer.num_kv_heads, layer.head_dim)).transpose(1, 2)
    v = value.unflatten(-1, (layer.num_kv_heads, layer.value_dim)).transpose(1, 2)
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = (q.float() @ k.float().transpose(2, 3)) * layer.scale
    if layer.softcap:
        scores = layer.softcap * torch.tanh(scores / layer.softcap)
    position = torch.arange(query.shape[1])
    distance = position[:, None] - position[None, :]
    if layer.slopes is not None:
        scores = scores - torch.tensor(layer.slopes)[:, None, None] * distance
    hidden = distance < 0
    if layer.window is not None:
        hidden = hidden | (distance >= layer.window)
    scores = scores.masked_fill(hidden, float("-inf"))
    if sinks is not None:
        beside = sinks.float()[:, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat((scores, beside), dim=-1)
    weights = scores.softmax(dim=-1)[..., : key.shape[1]]
    attended: Tensor = (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)
    return attended


def widen(  # noqa: PLR0917 - a layer's inputs
    query: Tensor, key: Tensor, value: Tensor, positions: Tensor, layer: Layer, head_dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Give all heads `head_dim` dimensions, the further ones mostly zeros.

    A bias that grows evenly with the key's position is a dimension of its own: the slope in the
    queries, the position in the keys.

    Args:
        query: [B, num_heads, S, layer.head_dim].
        key: [B, num_kv_heads, S, layer.head_dim].
        value: [B, num_kv_heads, S, layer.value_dim].
        positions: int64 [B, S].
        layer: of the model.
        head_dim: at least `layer.least_dim`.
    """
    further = head_dim - layer.head_dim
    if further:
        slope, place = torch.zeros(layer.num_heads, 1, further), torch.zeros(further)
        if layer.slopes is not None:
            slope[:, 0, 0], place[0] = torch.tensor(layer.slopes) / layer.scale, 1.0
        query = _join(query, slope.to(query.dtype))
        key = _join(key, positions[:, None, :, None].to(key.dtype) * place.to(key.dtype))
    if head_dim > layer.value_dim:
        value = _join(value, torch.zeros(head_dim - layer.value_dim, dtype=value.dtype))
    return query, key, value


def _join(heads: Tensor, dimensions: Tensor) -> Tensor:
    """Append dimensions to [B, heads, S, dim], the same ones wherever they have a size of 1."""
    return torch.cat((heads, torch.zeros_like(heads[..., :1]) + dimensions), dim=-1)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool) -> Tensor:
    """Rotate [..., S, head_dim] at positions 0 … S-1, as the operator does with its tables."""
    half = cos.shape[-1]
    cos, sin = cos[: heads.shape[-2]].to(heads.dtype), sin[: heads.shape[-2]].to(heads.dtype)
    turned, rest = heads[..., : 2 * half], heads[..., 2 * half :]
    if interleaved:
        a, b = turned[..., ::2], turned[..., 1::2]
        out = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
    else:
        a, b = turned[..., :half], turned[..., half:]
        out = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return torch.cat((out, rest), dim=-1)


class GroupQueryAttention(torch.autograd.Function):
    """One attention layer with its cache; see the module docstring."""

    apply: ClassVar[Callable[..., tuple[Tensor, Tensor, Tensor]]]

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes inputs by position
        _ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        past_key: Tensor,
        past_value: Tensor,
        seqlens_k: Tensor,  # noqa: ARG004 - only the graph reads the cache
        total_sequence_length: Tensor,  # noqa: ARG004
        query_seqlens: Tensor,  # noqa: ARG004
        cos: Tensor | None,
        sin: Tensor | None,
        sinks: Tensor | None,
        layer: Layer,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend over the new tokens; the cache is returned in its shape, unread."""
        if cos is not None and sin is not None:
            query, key = (
                rotate(
                    x.unflatten(-1, (-1, layer.head_dim)).transpose(1, 2),
                    cos,
                    sin,
                    interleaved=layer.interleaved,
                )
                .transpose(1, 2)
                .flatten(2)
                for x in (query, key)
            )
        return attend(query, key, value, layer, sinks), past_key.clone(), past_value.clone()

    @staticmethod
    def symbolic(  # noqa: PLR0917 - in forward's order
        g: Any,
        query: Any,
        key: Any,
        value: Any,
        past_key: Any,
        past_value: Any,
        seqlens_k: Any,
        total_sequence_length: Any,
        query_seqlens: Any,
        cos: Any,
        sin: Any,
        sinks: Any,
        layer: Layer,
    ) -> Any:
        """The node; its optional inputs up to query_seqlens (16) are written out as empty."""

        def nothing() -> Any:
            return symbolic_helper._optional_input_placeholder_tensor(g)  # noqa: SLF001 - no public one

        attributes: dict[str, Any] = {
            "num_heads_i": layer.num_heads,
            "kv_num_heads_i": layer.num_kv_heads,
            "scale_f": layer.scale,
        }
        if layer.softcap:
            attributes["softcap_f"] = layer.softcap
        if layer.window is not None:
            attributes["local_window_size_i"] = layer.window
        if layer.rotary is not None:
            attributes["do_rotary_i"] = 1
            attributes["rotary_interleaved_i"] = int(layer.interleaved)
        output, present_key, present_value = g.op(
            "com.microsoft::GroupQueryAttention",
            query,
            key,
            value,
            past_key,
            past_value,
            seqlens_k,
            total_sequence_length,
            nothing() if layer.rotary is None else cos,
            nothing() if layer.rotary is None else sin,
            nothing(),  # position_ids
            nothing(),  # attention_bias
            sinks if layer.sinks else nothing(),
            *(nothing() for _ in range(4)),
            query_seqlens,
            outputs=3,
            **attributes,
        )
        output.setType(query.type())
        present_key.setType(past_key.type())
        present_value.setType(past_value.type())
        return output, present_key, present_value
