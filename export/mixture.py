"""Find the mixtures of experts of a model, and compute or trace them as the operator does.

A block is found by what it holds: experts and a router. How its router chooses is not looked up by
its name: each way that the block's settings allow is computed and compared with the block itself.
Knows Transformers' routers; nothing about how experts are stored (`expert_weights.py`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, Final
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.errors import UnsupportedModel
from export.expert_weights import count_experts, read_experts
from export.experts import Experts, MixtureOfExperts, mix
from export.routing import Routing

PROBE_TOKENS: Final = 24
TOLERANCE: Final = 1e-4
"""Of the largest value of a block's result."""
SHARED: Final = ("shared_expert", "shared_experts", "shared_mlp")
"""Names of what sees every token beside the experts."""
CORRECTION: Final = "e_score_correction_bias"
SPARSEMIXER: Final = 2
"""The number of experts that it chooses."""

Compute = Callable[[Tensor, Tensor], Tensor]
"""The experts' share of a block, of x [B, S, H] and the router's logits [B × S, E]."""


@dataclass(frozen=True)
class Mixture:
    """One layer's mixture of experts."""

    block: str
    """The module's name."""
    experts: Experts
    routing: Routing

    def run(self, block: nn.Module, x: Tensor, compute: Compute) -> tuple[Tensor, Tensor]:
        """What the module makes of x [B, S, H], and the router's logits."""
        weight, bias = _router(block)
        logits = functional.linear(x.to(weight.dtype), weight, bias).flatten(0, -2)
        out = compute(x, logits)
        shared = next((m for m in (getattr(block, n, None) for n in SHARED) if m is not None), None)
        if shared is not None:
            more = shared(x)
            gate = getattr(block, "shared_expert_gate", None)
            out = out + (more if gate is None else torch.sigmoid(gate(x)) * more)
        return out, logits


def find_mixtures(model: nn.Module, model_type: str) -> tuple[Mixture, ...]:
    """The mixtures of a model, in the order of its layers.

    Raises:
        UnsupportedModel: it has one that the operator can't compute.
    """
    weights = dict(model.named_parameters())
    found: list[Mixture] = []
    chosen: int | None = None
    for name, block in model.named_modules():
        if not count_experts(block):
            continue
        candidates = _candidates(name, block)
        if chosen is None:
            chosen = _matching(block, candidates, weights)
        if chosen is None:
            raise UnsupportedModel(
                model_type,
                f"its {type(block).__name__} is none that ONNX Runtime's MoE computes on a CPU: "
                "experts with a SiLU gate, chosen by softmax, sigmoid or sparsemixer",
            )
        found.append(candidates[chosen])
    return tuple(found)


@contextmanager
def computed_by_shares(model: nn.Module, mixtures: Sequence[Mixture]) -> Iterator[None]:
    """Compute a model's mixtures in torch, as the operator will."""
    weights = dict(model.named_parameters())
    with _replaced(model, mixtures, lambda block, found: _by_shares(block, found, weights)):
        yield


@contextmanager
def traced_as_nodes(model: nn.Module, mixtures: Sequence[Mixture]) -> Iterator[None]:
    """Trace each of a model's mixtures as its router and one node."""
    with _replaced(model, mixtures, _by_node):
        yield


@contextmanager
def _replaced(
    model: nn.Module,
    mixtures: Sequence[Mixture],
    computing: Callable[[nn.Module, Mixture], Compute],
) -> Iterator[None]:
    with ExitStack() as stack:
        for mixture in mixtures:
            block = model.get_submodule(mixture.block)
            forward = _forward(block, mixture, computing(block, mixture))
            stack.enter_context(patch.object(block, "forward", forward))
        yield


def _forward(block: nn.Module, mixture: Mixture, compute: Compute) -> Callable[..., Any]:
    """A forward function that returns what the block's own does."""
    with torch.no_grad():
        as_tuple = isinstance(block(torch.zeros(1, 1, _router(block)[0].shape[1])), tuple)

    def forward(x: Tensor, *_: Any, **__: Any) -> Any:
        out, logits = mixture.run(block, x, compute)
        return (out, logits) if as_tuple else out

    return forward


def _by_shares(block: nn.Module, mixture: Mixture, weights: Mapping[str, Tensor]) -> Compute:
    bias = _correction(block)

    def compute(x: Tensor, logits: Tensor) -> Tensor:
        flat, shares = x.flatten(0, -2), mixture.routing.shares(logits, bias).to(x.dtype)
        if mixture.routing.on_input:
            flat, shares = flat * shares.sum(-1, keepdim=True), (shares > 0).to(x.dtype)
        return mix(flat, shares, mixture.experts, weights).view(x.shape)

    return compute


def _by_node(block: nn.Module, mixture: Mixture) -> Compute:
    bias, routing = _correction(block), mixture.routing

    def compute(x: Tensor, logits: Tensor) -> Tensor:
        router, total = routing.for_operator(logits, bias)
        factor = None if total is None else total.to(x.dtype).view(*x.shape[:-1], 1)
        if factor is not None and routing.on_input:
            x, factor = x * factor, None
        out = MixtureOfExperts.apply(x, router.to(x.dtype), mixture.experts, routing.k)
        return out if factor is None else out * factor

    return compute


def _matching(
    block: nn.Module, candidates: Sequence[Mixture], weights: Mapping[str, Tensor]
) -> int | None:
    """Which of some mixtures computes what a block does, on random numbers."""
    probe = torch.Generator().manual_seed(0)
    x = torch.randn(2, PROBE_TOKENS // 2, _router(block)[0].shape[1], generator=probe)
    with torch.no_grad():
        wanted = block(x)
        wanted = (wanted[0] if isinstance(wanted, tuple) else wanted).view(x.shape)
        nearest = TOLERANCE * float(wanted.abs().max())
        for number, mixture in enumerate(candidates):
            found, _ = mixture.run(block, x, _by_shares(block, mixture, weights))
            if float((found - wanted).abs().max()) <= nearest:
                return number
    return None


def _candidates(name: str, block: nn.Module) -> list[Mixture]:
    """What a block may be, by the settings that it has."""
    return [
        Mixture(name, experts, routing)
        for experts, routing in product(read_experts(name, block), _routings(block))
    ]


def _routings(block: nn.Module) -> list[Routing]:
    """How a block may choose, by the settings of the block and of its router."""

    def setting(*names: str) -> Any:
        parts = (_child(block), block)
        found = (getattr(part, name, None) for part in parts for name in names)
        return next((value for value in found if value), None)

    k = setting("top_k", "num_experts_per_tok")
    if not isinstance(k, int):
        return []
    groups, jitter = setting("n_group", "num_group") or 1, setting("router_jitter_noise")
    limits: list[dict[str, Any]] = [{}]
    if groups > 1:
        limited = {"groups": groups, "open_groups": setting("topk_group")}
        limits = [{**limited, "group_score": score} for score in ("best", "best two")] + limits
    found = [
        Routing(k=k, scores=scores, normalise=normalise, scale=scale, **limit)
        for scores, normalise, scale, limit in product(
            ("softmax", "sigmoid"),
            (True, False),
            dict.fromkeys((1.0, setting("routed_scaling_factor") or 1.0)),
            limits,
        )
    ]
    if k == 1:
        found.append(Routing(k=1, scores="sigmoid", on_input=True))
    if k == SPARSEMIXER and jitter:
        found.append(Routing(k=k, scores="sparsemixer", jitter=jitter))
    return found


def _child(block: nn.Module) -> nn.Module:
    """The router, which modeling files call by one of two names."""
    found: nn.Module = getattr(block, "gate", None) or block.get_submodule("router")
    return found


def _router(block: nn.Module) -> tuple[Tensor, Tensor | None]:
    """The router's matrix [E, H] and its bias [E]."""
    found = {
        name: value
        for module in _child(block).modules()
        for name in ("weight", "bias")
        if (value := getattr(module, name, None)) is not None
    }
    return found["weight"], found.get("bias")


def _correction(block: nn.Module) -> Tensor | None:
    """What a block adds to its scores before it chooses experts, [E]."""
    tensors = [*block.named_parameters(), *block.named_buffers()]
    found = next((t for name, t in tensors if name.rpartition(".")[2] == CORRECTION), None)
    return None if found is None else found.detach().flatten()
