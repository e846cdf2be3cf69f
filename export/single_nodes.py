"""Parts of a model that must trace as one node: RMSNorm, and the selection before the output layer.

Each is computed by torch as written here and becomes one ONNX Runtime operator in the graph.
Attention, the largest of them, has a module of its own. Knows nothing about architectures.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class RmsNorm(torch.autograd.Function):
    """RMSNorm as one node, which `cleanup.py` moves to its real domain, the default one."""

    apply: ClassVar[Callable[[Tensor, Tensor, float], Tensor]]

    @staticmethod
    def forward(_ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """[…, H] divided by its root mean square, times weight [H]."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
        return (wide * weight.float()).to(x.dtype)

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, epsilon: float) -> Any:
        """SimplifiedLayerNormalization, computed in float32 whatever the type of the weights."""
        out = g.op(
            "com.microsoft::SimplifiedLayerNormalization",
            x, weight, axis_i=-1, epsilon_f=epsilon, stash_type_i=1,
        )  # fmt: skip
        out.setType(x.type())
        return out


class PickRows(torch.autograd.Function):
    """hidden [B, S, H] at index [B, L] → [B, L, H], as one GatherND."""

    apply: ClassVar[Callable[[Tensor, Tensor], Tensor]]

    @staticmethod
    def forward(_ctx: Any, hidden: Tensor, index: Tensor) -> Tensor:
        """Gather along S in each row of the batch."""
        return hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))

    @staticmethod
    def symbolic(g: Any, hidden: Any, index: Any) -> Any:
        """GatherND with one batch dimension."""
        last = g.op("Constant", value_t=torch.tensor([-1]))
        out = g.op("GatherND", hidden, g.op("Unsqueeze", index, last), batch_dims_i=1)
        out.setType(hidden.type())
        return out


@contextmanager
def single_node_norms(model: nn.Module) -> Iterator[None]:
    """Make every module that computes plain RMSNorm trace as one node.

    Modules are recognised by what they compute on random numbers, not by name. The scale may be the
    weight or, as in Gemma, 1 + weight.
    """
    probe = torch.Generator().manual_seed(0)
    replaced = []
    for module in model.modules():
        parameters = dict(module.named_parameters())
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if set(parameters) != {"weight"} or parameters["weight"].dim() != 1 or not epsilon:
            continue
        weight = parameters["weight"]
        x = torch.randn(1, 2, weight.shape[0], generator=probe).to(weight.dtype)
        for offset in (0.0, 1.0):
            scale = weight if offset == 0 else (weight.float() + offset).to(weight.dtype)
            if torch.allclose(RmsNorm.apply(x, scale, epsilon), module(x), atol=1e-3, rtol=1e-3):
                scale = nn.Parameter(scale.detach(), requires_grad=False)
                module.register_parameter("traced_weight", scale)
                module.forward = lambda x, m=module, e=epsilon: RmsNorm.apply(x, m.traced_weight, e)
                replaced.append(module)
                break
    try:
        yield
    finally:
        for module in replaced:
            del module.forward, module.traced_weight
