"""Find attention that a model's code writes out: softmax(q · k, with whatever is added) · v.

Older modeling files don't call Transformers' attention interface. So every product of S × S numbers
for S tokens is followed to its softmax, and that to the product with the values, which is handed
over. What was done to the scores in between is measured, not read: how they are scaled, which of
them are hidden, and whether a bias grows with the distance (ALiBi). Knows no architectures.

Source of ALiBi: Press et al., arXiv 2108.12409.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from export.attention import Layer
from export.reach import NotPlain, window_of_scores

PRODUCTS: Final = frozenset({"matmul", "__matmul__", "bmm", "baddbmm"})
HIDDEN: Final = -5e3
"""Scores below it are masked; no model's own are."""
CLOSE: Final = 1e-3


@dataclass(frozen=True)
class Written:
    """Attention as the code has it: [B, heads, S, dim] each, or [B × heads, S, dim]."""

    query: Tensor
    key: Tensor
    value: Tensor
    scores: Tensor
    """What softmax was given."""

    def heads(self, batch: int, layer: Layer | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as [B, heads, S, dim].

        Args:
            batch: B, where `layer` isn't known yet.
            layer: says how many heads there are, and which of them repeat others.
        """
        shape = (batch, -1) if layer is None else (-1, layer.num_heads)
        query, key, value = (
            part.reshape(*shape, *part.shape[1:]) if part.dim() == 3 else part
            for part in (self.query, self.key, self.value)
        )
        if layer is not None and layer.repeats > 1:
            key, value = key[:, :: layer.repeats], value[:, :: layer.repeats]
        return query, key, value

    def as_written(self, attended: Tensor) -> Tensor:
        """What the code expects, of [B, S, heads, dim]."""
        attended = attended.transpose(1, 2)
        return attended.flatten(0, 1) if self.value.dim() == 3 else attended


class AttentionWrittenOut(TorchFunctionMode):
    """Hands over attention that is computed while the mode is on, and takes what becomes of it."""

    def __init__(self, tokens: int, attention: Callable[[Written], Tensor]) -> None:
        super().__init__()
        self.tokens = tokens
        self.attention = attention

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation; its result carries what it was made of."""
        given = [*args, *(kwargs or {}).values()]
        made_of = next((x.made_of for x in given if hasattr(x, "made_of")), None)
        name = getattr(func, "__name__", "")
        if name in PRODUCTS:
            left, right = [x for x in given if isinstance(x, Tensor)][-2:]
            if isinstance(made_of, tuple) and len(made_of) == 3 and hasattr(left, "made_of"):
                return self.attention(Written(*made_of[:2], right, made_of[2]))
            made_of = (left, right.transpose(-1, -2)) if self._is_square(left, right) else None
        result = func(*args, **(kwargs or {}))
        if made_of is None or not isinstance(result, Tensor):
            return result
        if name == "softmax" and len(made_of) == 2:
            made_of = (*made_of, given[0])
        result.made_of = made_of  # type: ignore[attr-defined]
        return result

    def _is_square(self, left: Tensor, right: Tensor) -> bool:
        """Whether a product has a number for each pair of tokens."""
        if left.dim() < 3 or right.dim() < 3:
            return False
        return int(left.shape[-2]) == self.tokens == int(right.shape[-1])


def measure(written: Written, batch: int) -> Layer:
    """Find out what an attention layer does.

    Args:
        written: for different tokens in each row of the batch.
        batch: rows, at least 2.

    Raises:
        NotPlain: it is no causal attention, or its scores have a bias of another kind.
    """
    query, key, value = written.heads(batch)
    num_heads, given = query.shape[1], key.shape[1]
    if not batch > 1 or num_heads % given:
        raise NotPlain(f"it has {num_heads} heads of queries and {given} of keys")
    products = query.float() @ key.float().repeat_interleave(num_heads // given, 1).mT
    scores = written.scores.float().view_as(products)
    window = window_of_scores(scores > HIDDEN)
    seen = (scores > HIDDEN).all(0)
    differences = [(x[0] - x[1])[seen] for x in (scores, products)]
    scale = float((differences[0] @ differences[1]) / (differences[1] @ differences[1]))
    bias = (scores - scale * products).masked_fill(~seen, 0.0)
    slopes = _slopes(bias, seen)
    repeats = _repeats(key, value)
    return Layer(
        num_heads=num_heads,
        num_kv_heads=given // repeats,
        head_dim=query.shape[-1],
        value_dim=value.shape[-1],
        scale=scale,
        window=window,
        slopes=slopes,
        repeats=repeats,
    )


def _slopes(bias: Tensor, seen: Tensor) -> tuple[float, ...] | None:
    """How much each head's bias grows from one key to the next; None: there is no bias.

    Args:
        bias: [B, heads, S, S]; zero where nothing is seen.
        seen: bool [heads, S, S].

    Raises:
        NotPlain: it doesn't grow evenly.
    """
    relative = bias - bias.diagonal(dim1=-2, dim2=-1)[..., None]
    position = torch.arange(bias.shape[-1])
    distance = (position[None] - position[:, None]).expand_as(seen) * seen
    slopes = (relative * distance).sum((0, 2, 3)) / (distance**2).sum((1, 2)) / len(bias)
    left_over = (relative - slopes[:, None, None] * distance).masked_fill(~seen, 0.0)
    if float(left_over.abs().max()) > CLOSE * max(1.0, float(bias.abs().max())):
        raise NotPlain("its attention has a bias that doesn't grow evenly with the distance")
    if float(slopes.abs().max()) < CLOSE / len(position):
        return None
    return tuple(slopes.tolist())


def _repeats(key: Tensor, value: Tensor) -> int:
    """How many heads in a row are the same, of keys and of values."""
    given = key.shape[1]
    for repeats in range(given, 1, -1):
        if given % repeats == 0 and all(
            bool((x.unflatten(1, (-1, repeats)) == x[:, ::repeats, None]).all())
            for x in (key, value)
        ):
            return repeats
    return 1
