"""Intercept the calls that Transformers' models make to attention, masks and rotary embeddings.

Modeling files look up attention and mask functions in registries and the rotary function in their
own namespace; the cache is passed to them. Attention that they write out is found by
`written_out.py`. Knows where those calls are made, not what is done with
them: `observe.py` records them, `onnx_config.py` traces them.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import Cache

from export.reach import context_length
from export.rotary_forms import traceable
from export.written_out import AttentionWrittenOut

INTERFACE = "llmhost_gqa"
"""The name under which our attention is registered with Transformers."""


class PassingCache(Cache):
    """A cache that stores nothing: caching is the operator's task."""

    has_previous_state = False
    """What models with state-space layers ask for, none of which is traced."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,  # noqa: ARG002
        cache_kwargs: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Return the new keys and values, the same objects."""
        return key_states, value_states


def rotary_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that turn positions into (cos, sin), by name."""
    return {name: m for name, m in model.named_modules() if hasattr(m, "rope_init_fn")}


def rotary_name(rotated_or_cos: object) -> str | None:
    """Which rotary module a tensor comes from, if no operation has been applied to it since."""
    return getattr(rotated_or_cos, "rotary", None)


def layer_index(module: nn.Module) -> int:
    """The number of an attention module's layer.

    Raises:
        TypeError: the module doesn't know it, so the layer has no cache of its own.
    """
    index = getattr(module, "layer_idx", None)
    if not isinstance(index, int):
        raise TypeError(f"layer_idx of {type(module).__name__} is {index!r}, expected an int")
    return index


def rotary_namespaces(model: nn.Module) -> list[ModuleType]:
    """The modeling files whose `apply_rotary_pos_emb` this model calls."""
    files = {type(module).__module__ for module in model.modules()}
    return [
        sys.modules[f] for f in sorted(files) if hasattr(sys.modules[f], "apply_rotary_pos_emb")
    ]


def taken(forward: Callable[..., Any], **given: Any) -> dict[str, Any]:
    """What a model's forward function takes of some arguments."""
    names = inspect.signature(forward).parameters
    return {name: value for name, value in given.items() if name in names}


@contextmanager
def intercepted(
    model: PreTrainedModel,
    attention: Any,
    written_out: AttentionWrittenOut,
    mask: Any,
    apply_rotary: Any,
) -> Iterator[None]:
    """Route attention, masks and rotary embeddings of `model` through the given functions.

    `attention` gets what is asked of Transformers' interface, `written_out` what isn't.

    `apply_rotary` gets the original function as its first argument. The cosines carry the name of
    their module as an attribute, which the result of any operation on them no longer has: that is
    how `observe.py` finds out whether a rotation reaches attention unchanged.
    """

    def mark(_module: nn.Module, _inputs: Any, output: Any, *, name: str) -> None:
        output[0].rotary = name

    def asked(*args: Any, **kw: Any) -> Any:
        with torch._C.DisableTorchFunction():  # noqa: SLF001 - or `written_out` would find it again
            return attention(*args, **kw)

    AttentionInterface.register(INTERFACE, asked)
    AttentionMaskInterface.register(INTERFACE, mask)
    before = model.config._attn_implementation  # noqa: SLF001 - Transformers offers no other switch
    with ExitStack() as stack:
        for name, module in rotary_modules(model).items():
            stack.enter_context(module.register_forward_hook(partial(mark, name=name)))
        for namespace in rotary_namespaces(model):
            original = namespace.apply_rotary_pos_emb

            def replacement(
                q: Tensor, k: Tensor, *rest: Any, _original: Any = original, **kw: Any
            ) -> Any:
                return apply_rotary(_original, q, k, *rest, **kw)

            stack.enter_context(patch.object(namespace, "apply_rotary_pos_emb", replacement))
        stack.enter_context(
            traceable([*rotary_modules(model).values()], context_length(model.config))
        )
        stack.enter_context(written_out)
        model.config._attn_implementation = INTERFACE  # noqa: SLF001
        try:
            yield
        finally:
            model.config._attn_implementation = before  # noqa: SLF001
