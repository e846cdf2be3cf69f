"""Trace rotary embeddings whose code can't be traced as it is.

Llama 4 and DeepSeek 2 multiply pairs of dimensions, as complex numbers, by powers of i, and ONNX
has no complex numbers: here the powers are pairs of cosine and sine, and the product is written
out. Phi-3.5 MoE makes tables as long as the sequence, of which a step with a cache knows only its
own part: here they are as long as the context. Knows Transformers' names of functions, not models.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

import torch
from torch import Tensor, nn

APPLY: Final = "apply_rotary_emb"
"""The function that multiplies queries and keys, in the modeling file's namespace."""
LENGTH: Final = "seq_len"
"""The argument of modules that make tables."""
CHANGING: Final = frozenset({"dynamic", "longrope"})
"""Frequencies that depend on the length of the sequence."""


@contextmanager
def traceable(rotary_modules: list[nn.Module], context: int) -> Iterator[None]:
    """Have rotary modules work such that they can be traced, for positions up to `context`."""
    with ExitStack() as stack:
        for module in rotary_modules:
            if LENGTH in inspect.signature(module.forward).parameters:
                stack.enter_context(patch.object(module, "forward", _tables(module, context)))
        stack.enter_context(real_rotations(rotary_modules))
        yield


def _tables(module: nn.Module, context: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """A forward function that returns cosines and sines [context, dim] for whatever length."""
    with torch.no_grad():
        cos, sin = module(torch.zeros(1), seq_len=context)

    def forward(x: Tensor, seq_len: Any = None) -> tuple[Tensor, Tensor]:  # noqa: ARG001 - theirs
        return cos.to(x.dtype), sin.to(x.dtype)

    return forward


@contextmanager
def real_rotations(rotary_modules: list[nn.Module]) -> Iterator[None]:
    """Have a model, whose rotary modules these are, rotate with real numbers, not complex ones."""
    found = [module for module in rotary_modules if _is_complex(module)]
    names = {type(module).__module__ for module in found}
    with ExitStack() as stack:
        for module in found:
            stack.enter_context(patch.object(module, "forward", _powers(module)))
        for name in sorted(names):
            namespace: Any = sys.modules[name]
            rotate = _rotation(getattr(namespace, APPLY))
            stack.enter_context(patch.object(namespace, APPLY, rotate))
        yield


def _is_complex(module: Any) -> bool:
    if module.rope_type in CHANGING or not hasattr(sys.modules[type(module).__module__], APPLY):
        return False
    with torch.no_grad():
        return (
            torch.is_tensor(out := module(torch.zeros(1), torch.zeros(1, 1))) and out.is_complex()
        )


def _powers(module: Any) -> Callable[..., Tensor]:
    """A forward function that returns [B, S, dim / 2, 2]: cosine and sine."""

    def forward(_x: Tensor, position_ids: Tensor) -> Tensor:
        angles = position_ids[..., None].float() * module.inv_freq.float()
        pairs = torch.stack((angles.cos(), angles.sin()), dim=-1)
        scaling: float = module.attention_scaling
        return pairs * scaling

    return forward


def _rotation(original: Callable[..., Any]) -> Callable[..., tuple[Tensor, Tensor]]:
    """A function that rotates queries and keys as `original` does, by what `_powers` returns."""
    heads = _axis_of_heads(original)

    def turned(x: Tensor, powers: Tensor) -> Tensor:
        cos, sin = powers.unsqueeze(heads).unbind(-1)
        real, imaginary = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        pairs = (real * cos - imaginary * sin, real * sin + imaginary * cos)
        return torch.stack(pairs, dim=-1).flatten(-2).type_as(x)

    def rotate(query: Tensor, key: Tensor, powers: Tensor) -> tuple[Tensor, Tensor]:
        return turned(query, powers), turned(key, powers)

    return rotate


def _axis_of_heads(original: Callable[..., Any]) -> int:
    """Whether a function takes heads before tokens, at axis 1, or behind them, at axis 2."""
    probe, powers = torch.zeros(1, 2, 3, 4), torch.ones(1, 3, 2, dtype=torch.complex64)
    try:
        original(probe, probe, powers)
    except RuntimeError:  # two tokens of three heads
        return 2
    return 1
