"""Refuse weights that differ where a model has one for all of them.

With `tie_word_embeddings` Transformers 4 drops a stored output layer for the embedding, whatever is
in it, and says nothing; Transformers 5 keeps both. Knows Transformers' models, not files.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn

from export.errors import SourceUnusable
from export.weight_file import WeightFile

PART: Final = 1 << 22
"""Numbers that are compared together."""


def refuse_untied(
    described: str, model: nn.Module, loaded: Mapping[str, Tensor], weights: WeightFile
) -> None:
    """Compare what was stored under each name of a weight that has several.

    Args:
        described: the source.
        model: what was loaded.
        loaded: by the model's names, what was stored for them.
        weights: where that is.

    Raises:
        SourceUnusable: two differ.
    """
    names_of = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in loaded:
            names_of[id(parameter)].append(name)
    for first, *others in names_of.values():
        for other in others:
            if not _equal(loaded[first], loaded[other], weights):
                raise SourceUnusable(
                    f"{described}: {first} and {other} are stored with different values, and the "
                    "model has one weight for both; if both are meant, tie_word_embeddings has to "
                    "be false in config.json"
                )


def _equal(one: Tensor, other: Tensor, weights: WeightFile) -> bool:
    if one.shape != other.shape:
        return False
    for ours, theirs in zip(one.flatten().split(PART), other.flatten().split(PART), strict=True):
        if not bool((ours == theirs).all()):
            return False
        weights.release()
    return True
