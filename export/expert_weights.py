"""Which weights of a Transformers model make its experts, however a modeling file stores them.

Three ways are known: a list of modules with three projections each; one tensor for all experts'
gates and values and one for what is behind them; and two modules that hold such tensors with rows
and columns exchanged. Whether gates and values alternate or follow each other can't be told from
the shapes: both are offered, and `mixture.py` finds out by numbers. Knows nothing about routers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from torch import Tensor, nn

from export.experts import Experts, Piece, Stack

PROJECTIONS: Final = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))
"""Names of an expert's three projections: gate, value, and the one behind them."""


WHOLE: Final = ((0, None),)
"""One piece of all rows."""


def count_experts(block: nn.Module) -> int:
    """How many experts a module holds and chooses from; 0: it is no mixture of experts."""
    if not (hasattr(block, "gate") or hasattr(block, "router")):
        return 0
    experts = getattr(block, "experts", None)
    if isinstance(experts, nn.ModuleList):
        return len(experts)
    stored = _stored(block)
    return 0 if stored is None else len(stored.up)


def read_experts(name: str, block: nn.Module) -> list[Experts]:
    """The experts of a block, in each way that its weights may be meant.

    Args:
        name: the block's in the model.
        block: a module of which `count_experts` found some.

    Returns:
        Nothing if the weights aren't those of experts with a gate.
    """
    experts = getattr(block, "experts", None)
    if isinstance(experts, nn.ModuleList):
        return _listed(f"{name}.experts", experts)
    return _stacked(name, block)


def _listed(name: str, experts: nn.ModuleList) -> list[Experts]:
    names = next((n for n in PROJECTIONS if all(hasattr(experts[0], x) for x in n)), None)
    if names is None:
        return []
    width, hidden = getattr(experts[0], names[0]).weight.shape
    numbers = range(len(experts))

    def stack(parts: tuple[str, ...], kind: str, shape: tuple[int, ...]) -> Stack | None:
        if any(getattr(getattr(experts[0], part), kind) is None for part in parts):
            return None
        return Stack(
            tuple(tuple(Piece(f"{name}.{i}.{part}.{kind}") for part in parts) for i in numbers),
            (len(experts), *shape),
        )

    fc1 = stack(names[:2], "weight", (2 * width, hidden))
    fc2 = stack(names[2:], "weight", (hidden, width))
    assert fc1 is not None
    assert fc2 is not None
    biases = stack(names[:2], "bias", (2 * width,)), stack(names[2:], "bias", (hidden,))
    return [Experts(fc1, fc2, *biases)]


@dataclass(frozen=True)
class _Stored:
    """All experts' weights in two tensors."""

    names: tuple[str, str]
    """Within the block: of gates and values, and of what is behind them."""
    up: Tensor
    """[E, 2 × I, H], or turned: [E, H, 2 × I]."""
    down: Tensor
    """[E, H, I], or turned: [E, I, H]."""
    turned: bool


def _stored(block: nn.Module) -> _Stored | None:
    experts, first = getattr(block, "experts", None), getattr(block, "input_linear", None)
    if isinstance(getattr(experts, "gate_up_proj", None), Tensor):
        names, turned = ("experts.gate_up_proj", "experts.down_proj"), True
    elif isinstance(getattr(first, "weight", None), Tensor):
        names, turned = ("input_linear.weight", "output_linear.weight"), False
    else:
        return None
    up, down = (block.get_parameter(name) for name in names)
    return _Stored(names, up, down, turned) if up.dim() == down.dim() == 3 else None


def _stacked(name: str, block: nn.Module) -> list[Experts]:
    stored = _stored(block)
    assert stored is not None
    numbers = range(len(stored.up))
    hidden, both = stored.up.shape[1:] if stored.turned else stored.up.shape[:0:-1]
    own: Any = getattr(block, "experts", block)
    biased = isinstance(getattr(own, "gate_up_proj_bias", None), Tensor)

    def stack(weight: str, shape: tuple[int, ...], rows: Sequence[tuple[int, int | None]]) -> Stack:
        """Of weights or biases, whose pieces go from a row to another."""
        turned = stored.turned and len(shape) == 2
        return Stack(
            tuple(
                tuple(Piece(f"{name}.{weight}", i, turned, *some) for some in rows) for i in numbers
            ),
            (len(numbers), *shape),
        )

    first, second = stored.names
    found = []
    for rows in (((0, both // 2), (both // 2, None)), WHOLE):
        experts = Experts(
            stack(first, (both, hidden), rows),
            stack(second, (hidden, both // 2), WHOLE),
            stack(f"{first}_bias", (both,), rows) if biased else None,
            stack(f"{second}_bias", (hidden,), WHOLE) if biased else None,
        )
        if hasattr(own, "limit"):
            experts = replace(experts, alpha=own.alpha, beta=1.0, limit=own.limit)
        found.append(experts)
    return found
