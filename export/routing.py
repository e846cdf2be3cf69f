"""Which experts a token goes to, and with what share of the result.

ONNX Runtime's operators know one way: softmax of the router's logits, the k largest, divided by
their sum. (MoE can leave them undivided; QMoE divides them on a CPU, whatever it is told.) Every
other way is computed here and given to it as logarithms of shares, which its softmax turns back
into shares that add up to 1; the result is multiplied by their sum. Knows nothing about what
experts compute.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Routing:
    """How logits become shares."""

    k: int
    """Experts per token."""
    scores: Literal["softmax", "sigmoid", "sparsemixer"] = "softmax"
    """sparsemixer: each of two experts has its share among those close to it (Phi-3.5 MoE)."""
    normalise: bool = False
    """Whether the shares of a token are divided by their sum."""
    scale: float = 1.0
    """All shares are multiplied by it."""
    groups: int = 1
    """The experts are in so many groups,"""
    open_groups: int = 1
    """of which a token may go to so many,"""
    group_score: Literal["best", "best two"] = "best"
    """those with the highest score, or the highest sum of two scores."""
    jitter: float = 0.0
    """sparsemixer: half the relative distance at which an expert is close."""
    on_input: bool = False
    """An expert's share is a factor of what it is given, not of what it makes (Llama 4)."""

    def shares(self, logits: Tensor, bias: Tensor | None = None) -> Tensor:
        """Shares [T, E], zero for experts that a token doesn't go to.

        Args:
            logits: [T, E].
            bias: [E], added to the scores when experts are chosen, but not to their shares.
        """
        if self.scores == "sparsemixer":
            return self._sparse(logits)
        scores = logits.softmax(-1) if self.scores == "softmax" else logits.sigmoid()
        choice = scores if bias is None else scores + bias
        if self.groups > 1:
            choice = choice * self._open(choice)
        chosen = choice.topk(self.k, dim=-1).indices
        shares = scores.gather(-1, chosen)
        if self.normalise:
            shares = shares / shares.sum(-1, keepdim=True)
        return torch.zeros_like(scores).scatter(-1, chosen, shares * self.scale)

    def for_operator(self, logits: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the operator's softmax is given [T, E], and what its result is multiplied by [T, 1].

        The second is None where that is 1.
        """
        if bias is None and self == Routing(k=self.k, normalise=True):
            return logits, None
        if bias is None and self == Routing(k=self.k, scale=self.scale):
            largest = logits.softmax(-1).topk(self.k, dim=-1).values
            return logits, largest.sum(-1, keepdim=True) * self.scale
        shares = self.shares(logits, bias)
        return shares.log(), shares.sum(-1, keepdim=True)

    def _open(self, choice: Tensor) -> Tensor:
        """1 for the experts of the groups that a token may go to, 0 for others; [T, E]."""
        size = choice.shape[-1] // self.groups
        grouped = choice.view(-1, self.groups, size)
        best = grouped.topk(1 if self.group_score == "best" else 2, dim=-1).values.sum(-1)
        chosen = best.topk(self.open_groups, dim=-1).indices
        mask = torch.zeros_like(best).scatter(-1, chosen, torch.ones_like(chosen, dtype=best.dtype))
        return (mask[..., None] * torch.ones(size, dtype=best.dtype)).flatten(-2)

    def _sparse(self, logits: Tensor) -> Tensor:
        shares = torch.zeros_like(logits)
        left = logits
        for _ in range(2):
            most, chosen = left.max(-1, keepdim=True)
            far = (most - logits) / torch.maximum(logits.abs(), most) > 2 * self.jitter
            share = left.masked_fill(far, float("-inf")).softmax(-1).gather(-1, chosen)
            shares = shares.scatter(-1, chosen, share)
            left = left.scatter(-1, chosen, torch.full_like(share, float("-inf")))
        return shares
