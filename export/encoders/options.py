"""Read a configuration such that none of its options is overlooked.

Every name in a config.json is used, known to change no vector, or refused with its value: a model
that is computed without one of its options makes vectors that look as good as the right ones.
Knows no models.
"""

import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

from transformers import PretrainedConfig

from export.errors import SourceUnusable, UnsupportedModel
from export.file_checks import read_object, shown
from export.folder import CONFIG

MAX_SIZE: Final = 1 << 24
"""Of whatever is counted: far above any model's vocabulary or widest layer."""
ROTARY: Final = ("rope_parameters", "rope_scaling")
"""Objects whose entries are options of their own: `rope_scaling.factor`."""
REVERSING: Final = ("is_decoder", "is_encoder_decoder", "add_cross_attention", "pruned_heads")
"""Names that all configurations of Transformers have, and that would make another model of one."""
COMMON: Final = frozenset(PretrainedConfig().to_dict()) - {*REVERSING}
"""Names that all configurations of Transformers have, for training, generating and bookkeeping."""
BESIDE: Final = frozenset({
    *("auto_map", "torch_dtype", "attn_implementation", "_attn_implementation_autoset"),
    *("gradient_checkpointing", "initializer_range", "use_cache", "classifier_dropout"),
    *("matryoshka_dimensions", "is_matryoshka", "sentence_transformers", "transformers.js_config"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),
})  # fmt: skip
"""Names that many models have beside them, and that the recipe reads or nobody."""


class Options:
    """The options of a config.json, each of which is to be asked for; null is as good as absent."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CONFIG
        values = read_object(self.path)
        self.kind = str(values.pop("model_type", ""))
        self.common = {name: values[name] for name in ("id2label", "architectures", "pad_token_id")
                       if name in values}  # fmt: skip
        labels = values.get("id2label")
        if labels is not None and not _are_labels(labels):
            raise self._damaged("id2label", labels, "an object of labels by their numbers")
        for name in ROTARY:
            if isinstance(values.get(name), dict):
                parts = values.pop(name)
                values.update({f"{name}.{part}": value for part, value in parts.items()})
        self._left = {name: value for name, value in values.items() if value is not None}

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def value(self, *names: str) -> Any:
        """The value that is there under any of these names; None if there is none.

        Raises:
            SourceUnusable: two names have different values.
        """
        given = {name: self._left.pop(name) for name in names if name in self._left}
        first = next(iter(given), "")
        for name, value in given.items():
            if name != first and value != given[first]:
                raise SourceUnusable(
                    f"{self.path}: {first} is {shown(given[first])} and {name} is {shown(value)}"
                )
        return next(iter(given.values()), None)

    def whole(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """A size or a count.

        Raises:
            SourceUnusable: it is missing, and there is no default; or it is no such number.
        """
        name, value = self._named(names, default)
        if type(value) is not int or not least <= value <= MAX_SIZE:
            raise self._damaged(name, value, f"an int of {least} … {MAX_SIZE}")
        return value

    def number(self, *names: str, default: float | None = None) -> float:
        """A number above 0.

        Raises:
            SourceUnusable: it is missing, and there is no default; or it is no such number.
        """
        name, value = self._named(names, default)
        if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
            raise self._damaged(name, value, "a number above 0")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """A switch.

        Raises:
            SourceUnusable: it is neither true nor false.
        """
        value = self.value(name)
        if value not in (None, True, False):
            raise self._damaged(name, value, "true or false")
        return default if value is None else bool(value)

    def only(self, name: str, allowed: object) -> None:
        """Refuse any value but one.

        Raises:
            UnsupportedModel: it has another.
        """
        value = self.value(name)
        if value is not None and value != allowed:
            raise self.refusal(name, value, f"only {shown(allowed)} is supported")

    def refuse_others(self, idle: Collection[str]) -> None:
        """Refuse what was not asked for, save names that are known to change no vector.

        Raises:
            UnsupportedModel: with the first of them and its value.
        """
        for name in REVERSING:
            self.only(name, {} if name == "pruned_heads" else False)
        for name, value in self._left.items():
            if name not in COMMON | BESIDE and name not in idle:
                raise self.refusal(name, value, "an option that is not known here")

    def refusal(self, name: str, value: object, why: str) -> UnsupportedModel:
        """The error that says which value of which option is not supported."""
        return UnsupportedModel(self.kind, f"its {name} is {shown(value)}, {why}")

    def _named(self, names: Sequence[str], default: object) -> tuple[str, Any]:
        """The name that the file has for an option, and its value."""
        name = next((name for name in names if name in self._left), names[0])
        value = self.value(*names)
        return name, default if value is None else value

    def _damaged(self, name: str, value: object, expected: str) -> SourceUnusable:
        return SourceUnusable(f"{self.path}: {name} is {shown(value)}, expected {expected}")


def _are_labels(value: object) -> bool:
    return isinstance(value, dict) and all(re.fullmatch("[0-9]{1,9}", key) for key in value)
