"""MoE as torch sees it, so that a traced model has one node for all experts of a layer.

An expert is `fc2 · swiglu(fc1 · x)`, whose first product holds gate and value in alternating rows.
Models store these matrices in many ways: a `Stack` says which rows of which weights make them. From
it torch computes what the operator will, and `stored_weights.py` makes the operator's constants,
expert by expert. Knows nothing about models (`mixture.py`) nor which experts a token goes to
(`routing.py`).

Source: com.microsoft.MoE in ONNX Runtime's ContribOperators.md. Its CPU kernel takes interleaved
gates alone, and no third matrix.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec
import torch
from torch import Tensor
from torch.nn import functional
from torch.onnx import symbolic_helper

DOMAIN: Final = "llmhost"
STACKED: Final = "StackedWeights"


class Piece(msgspec.Struct, frozen=True):
    """Rows of a weight that belong to one expert."""

    name: str
    """Of the weight in the model."""
    index: int | None = None
    """The expert's along the weight's first axis; None: the weight is this expert's alone."""
    turned: bool = False
    """Whether the weight has a column, not a row, for each output."""
    start: int = 0
    stop: int | None = None

    def of(self, weight: Any) -> Any:
        """These rows of the weight, a tensor or an array; a view."""
        part = weight if self.index is None else weight[self.index]
        return (part.T if self.turned else part)[self.start : self.stop]


class Stack(msgspec.Struct, frozen=True):
    """Weights of all experts, [E, N, K], or biases, [E, N]."""

    experts: tuple[tuple[Piece, ...], ...]
    """By expert; the rows of several pieces alternate."""
    shape: tuple[int, ...]

    def of(self, expert: int, weights: Mapping[str, Tensor]) -> Tensor:
        """One expert's, [N, K] or [N]."""
        pieces = [piece.of(weights[piece.name]) for piece in self.experts[expert]]
        return torch.stack(pieces, dim=1).flatten(0, 1)

    def names(self) -> set[str]:
        """Of all weights that it is made of."""
        return {piece.name for pieces in self.experts for piece in pieces}


@dataclass(frozen=True)
class Experts:
    """The experts of one layer."""

    fc1: Stack
    """[E, 2 × I, H]; gate and value alternate."""
    fc2: Stack
    """[E, H, I]."""
    fc1_bias: Stack | None = None
    fc2_bias: Stack | None = None
    alpha: float = 1.0
    """The gate is multiplied by sigmoid(alpha × gate),"""
    beta: float = 0.0
    """and by value + beta."""
    limit: float | None = None
    """Gates are at most this, values within ± this."""

    def names(self) -> set[str]:
        """Of all weights of the experts."""
        stacks = (self.fc1, self.fc2, self.fc1_bias, self.fc2_bias)
        return {name for stack in stacks if stack is not None for name in stack.names()}

    def run(self, expert: int, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """[T, H] → [T, H] of one expert."""
        biases = [
            None if stack is None else stack.of(expert, weights)
            for stack in (self.fc1_bias, self.fc2_bias)
        ]
        both = functional.linear(x, self.fc1.of(expert, weights), biases[0])
        gate, value = both[..., ::2], both[..., 1::2]
        if self.limit is not None:
            gate, value = gate.clamp(max=self.limit), value.clamp(-self.limit, self.limit)
        inner = gate * torch.sigmoid(self.alpha * gate) * (value + self.beta)
        return functional.linear(inner, self.fc2.of(expert, weights), biases[1])


def mix(x: Tensor, shares: Tensor, experts: Experts, weights: Mapping[str, Tensor]) -> Tensor:
    """Add up what experts make of tokens.

    Args:
        x: [T, H].
        shares: [T, E], zero where an expert doesn't see a token.
        experts: of the layer.
        weights: of the model, by name.

    Returns:
        [T, H].
    """
    total = torch.zeros_like(x)
    for expert in shares.any(0).nonzero()[:, 0].tolist():
        tokens = shares[:, expert].nonzero()[:, 0]
        made = experts.run(expert, x[tokens], weights) * shares[tokens, expert, None]
        total.index_add_(0, tokens, made.to(x.dtype))
    return total


class MixtureOfExperts(torch.autograd.Function):
    """All experts of a layer as one node; see the module docstring."""

    apply: ClassVar[Callable[..., Tensor]]

    @staticmethod
    def forward(
        _ctx: Any,
        x: Tensor,
        router: Tensor,  # noqa: ARG004 - only the graph reads it
        experts: Experts,  # noqa: ARG004
        k: int,  # noqa: ARG004
    ) -> Tensor:
        """A tensor of the result's shape, as the tracer needs it: its weights are not here."""
        return x.clone()

    @staticmethod
    def symbolic(g: Any, x: Any, router: Any, experts: Experts, k: int) -> Any:
        """The node and, for each stack, one that `stored_weights.fill_in` replaces."""

        def stacked(stack: Stack | None) -> Any:
            if stack is None:
                return symbolic_helper._optional_input_placeholder_tensor(g)  # noqa: SLF001
            out = g.op(f"{DOMAIN}::{STACKED}", stack_s=msgspec.json.encode(stack).decode())
            out.setType(x.type().with_sizes(list(stack.shape)))
            return out

        attributes: dict[str, Any] = {
            "k_i": k,
            "normalize_routing_weights_i": 1,
            "activation_type_s": "swiglu",
            "swiglu_fusion_i": 1,
            "activation_alpha_f": experts.alpha,
            "activation_beta_f": experts.beta,
        }
        if experts.limit is not None:
            attributes["swiglu_limit_f"] = experts.limit
        inputs = [stacked(experts.fc1), stacked(experts.fc1_bias), stacked(experts.fc2)]
        if experts.fc2_bias is not None:
            inputs.append(stacked(experts.fc2_bias))
        out = g.op("com.microsoft::MoE", x, router, *inputs, **attributes)
        out.setType(x.type())
        return out
