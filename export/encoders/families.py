"""Encoders that Transformers lacks, by the type that a configuration names."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from transformers import PretrainedConfig, PreTrainedModel

from export.encoders.gte import GteForScoring, GteModel, read_gte
from export.encoders.nomic import NomicModel, read_nomic
from export.errors import UnsupportedModel
from export.file_checks import read_object
from export.folder import CONFIG, weight_shapes


@dataclass(frozen=True)
class Family:
    """How models of a type are read and made."""

    read: Callable[[Path], PretrainedConfig]
    encoder: type[PreTrainedModel]
    scorer: type[PreTrainedModel] | None
    """With a head for cross-encoders, where there are any."""
    prefixes: tuple[str, ...]
    """What the encoder may be called in the names of weights that have a head too."""


GTE: Final = Family(read_gte, GteModel, GteForScoring, ("new", "gte"))
NOMIC: Final = Family(read_nomic, NomicModel, None, ("bert", "nomic_bert"))
FAMILIES: Final = {"nomic_bert": NOMIC, "new": GTE, "gte": GTE}


def written_here(folder: Path, *, scoring: bool) -> tuple[PretrainedConfig, Any] | None:
    """The configuration and the class of a folder's model; None if it is of another family.

    Raises:
        SourceUnusable: the configuration is damaged.
        UnsupportedModel: one of its options is not supported, or it is to score and can't.
    """
    kind = read_object(folder / CONFIG).get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        return None
    config = family.read(folder)
    made = family.scorer if scoring else family.encoder
    if made is None:
        raise UnsupportedModel(str(kind), "rerankers of this type are not supported")
    stored = {name.partition(".")[0] for name in weight_shapes(folder) or ()}
    prefix = next((name for name in family.prefixes if name in stored), family.prefixes[0])
    return config, type(made.__name__, (made,), {"base_model_prefix": prefix})
