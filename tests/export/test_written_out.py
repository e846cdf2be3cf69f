"""What is measured of attention that a model's code writes out."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from export.attention import Layer
from export.reach import NotPlain
from export.written_out import AttentionWrittenOut, Written, measure

TOKENS, DIM = 13, 8
DISTANCE = torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)[None]
LATER = DISTANCE < 0


def measured(change: Callable[[Tensor], Tensor], heads: int = 4, copies: int = 1) -> Layer:
    """What is found of softmax(change(q · k)) · v."""
    random = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, heads, TOKENS, DIM, generator=random)
    key, value = (x[:, ::copies].repeat_interleave(copies, 1) for x in (key, value))
    found = []

    def attention(written: Written) -> Tensor:
        found.append(measure(written, 2))
        return written.value

    with AttentionWrittenOut(TOKENS, attention):
        weights = change(query @ key.transpose(-1, -2)).softmax(dim=-1)
        assert (weights @ value).shape == value.shape
    assert len(found) == 1
    return found[0]


def test_scale_window_slopes_and_repeated_heads_are_measured() -> None:
    slopes = torch.tensor([0.5, 0.25, 0.1, 0.01])

    def change(scores: Tensor) -> Tensor:
        scores = 0.3 * scores - slopes[:, None, None] * DISTANCE
        return scores.masked_fill(LATER | (DISTANCE >= 5), -1e9)

    layer = measured(change, copies=2)
    assert layer.scale == pytest.approx(0.3, rel=1e-5)
    assert layer.window == 5
    assert layer.slopes == pytest.approx(slopes.tolist(), rel=1e-4)
    assert (layer.num_heads, layer.num_kv_heads, layer.repeats) == (4, 2, 2)


def test_plain_attention_has_neither_window_nor_slopes() -> None:
    layer = measured(lambda scores: scores.masked_fill(LATER, float("-inf")))
    assert (layer.window, layer.slopes, layer.repeats) == (None, None, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda scores: scores, "its attention sees later tokens"),
        (
            lambda scores: scores.masked_fill(LATER | (DISTANCE == 2), -1e9),
            "its attention mask is not a window",
        ),
        (
            lambda scores: (scores - DISTANCE.abs().sqrt()).masked_fill(LATER, -1e9),
            "its attention has a bias that doesn't grow evenly with the distance",
        ),
    ],
)
def test_attention_of_another_kind_is_refused(
    change: Callable[[Tensor], Tensor], said: str
) -> None:
    with pytest.raises(NotPlain, match=said):
        measured(change)
