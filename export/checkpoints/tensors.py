"""The tensors that a quantised checkpoint consists of: known by their headers, read one at a time.

Knows files and the words for what is wrong with them; not what the tensors mean.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open

from export.errors import SourceUnusable
from export.file_checks import refusing, shown
from export.folder import StoredTensor

FLOATS: Final = ("F16", "BF16", "F32")
"""What scales are stored in."""
FLOAT8: Final = ("F8_E4M3", "F8_E5M2")

Shape = tuple[int, ...]
Settings = TypeVar("Settings", bound=msgspec.Struct)


@dataclass(frozen=True)
class Weight:
    """A weight that is stored quantised."""

    name: str
    """That the model has for it."""
    shape: Shape
    parts: tuple[str, ...]
    """Names of the tensors that it is made of."""
    numbers: Callable[[], torch.Tensor]
    """Reads the parts and makes the weight of them, in float32."""

    @property
    def module(self) -> str:
        """The name of the module that the weight belongs to."""
        return self.name.removesuffix(".weight")


class Tensors:
    """What a folder's safetensors files hold."""

    def __init__(self, folder: Path, stored: Mapping[str, StoredTensor]) -> None:
        self.folder = folder
        self.stored = stored
        self._open: dict[Path, Any] = {}
        """Each file is mapped once; opening it reads all of its header."""

    def unusable(self, said: str) -> SourceUnusable:
        """An error about this checkpoint."""
        return SourceUnusable(f"{self.folder}: {said}")

    def settings(self, config: Mapping[str, Any], kind: type[Settings]) -> Settings:
        """What `quantization_config` says, as a record.

        Raises:
            SourceUnusable: a field is missing or of another type.
        """
        try:
            return msgspec.convert(config, kind)
        except msgspec.ValidationError as error:
            raise self.unusable(f"quantization_config: {error}") from error

    def refuse_unless(self, setting: str, value: object, allowed: Collection[object]) -> None:
        """Refuse a setting of another value.

        Raises:
            SourceUnusable: with the setting, its value and those that can be read.
        """
        if value not in allowed:
            expected = ", ".join(map(repr, allowed))
            raise self.unusable(
                f"quantization_config.{setting} is {shown(value)}, which can't be read; expected "
                f"{expected}"
            )

    def pattern(self, setting: str, written: str, expression: str) -> re.Pattern[str]:
        """A regular expression that a setting names modules by, compiled once for all of them.

        Args:
            setting: the setting's name.
            written: what it has.
            expression: the regular expression in that.

        Raises:
            SourceUnusable: it is none.
        """
        with refusing(f"{self.folder}: quantization_config.{setting} has {shown(written)}"):
            return re.compile(expression)

    def group_size(self, value: int, columns: int) -> int:
        """How many columns share a scale, of a setting that says -1 for all of them.

        Raises:
            SourceUnusable: it says 0 or less.
        """
        if value == -1:
            return columns
        if value < 1:
            raise self.unusable(
                f"quantization_config.group_size is {value}, expected -1 or an int >= 1"
            )
        return min(value, columns)

    def modules(self, *endings: str) -> list[str]:
        """Modules that have a tensor with one of these names."""
        found = (
            name.removesuffix(f".{ending}")
            for name in self.stored
            for ending in endings
            if name.endswith(f".{ending}")
        )
        return list(dict.fromkeys(found))

    def stored_in(self, *dtypes: str) -> list[str]:
        """Modules whose `weight` is of one of these types."""
        return [m for m in self.modules("weight") if self.stored[f"{m}.weight"].dtype in dtypes]

    def dtype(self, name: str) -> str | None:
        """The type that a tensor is stored in; None: it is not there."""
        tensor = self.stored.get(name)
        return None if tensor is None else tensor.dtype

    def shape(self, name: str, dtypes: Collection[str], dims: int = 2) -> Shape:
        """The shape of a tensor that must be there.

        Raises:
            SourceUnusable: it is missing or empty, or of another type or number of dimensions.
        """
        tensor = self.stored.get(name)
        if tensor is None:
            raise self.unusable(f"{name} is missing, which a quantised weight needs")
        if tensor.dtype not in dtypes:
            raise self.unusable(f"{name} is {tensor.dtype}, expected {' or '.join(dtypes)}")
        if len(tensor.shape) != dims:
            raise self.unusable(f"{name} has {[*tensor.shape]}, expected {dims} dimensions")
        if 0 in tensor.shape:
            raise self.unusable(f"{name} has {[*tensor.shape]}, which is empty")
        return tensor.shape

    def expect(self, name: str, dtypes: Collection[str], *shapes: Shape) -> Shape:
        """The shape of a tensor that must be there, in one of some shapes.

        Raises:
            SourceUnusable: it is missing, or of another type or shape.
        """
        dims = len(self.stored[name].shape) if name in self.stored else 0
        found = self.shape(name, dtypes, dims)
        if found not in shapes:
            expected = " or ".join(str([*shape]) for shape in shapes)
            raise self.unusable(f"{name} has {[*found]}, expected {expected}")
        return found

    def expect_count(self, name: str, dtypes: Collection[str], count: int) -> None:
        """Refuse a tensor unless it has so many numbers, in whatever shape.

        Raises:
            SourceUnusable: it is missing, or has others.
        """
        dims = len(self.stored[name].shape) if name in self.stored else 0
        found = math.prod(self.shape(name, dtypes, dims))
        if found != count:
            raise self.unusable(f"{name} has {found} numbers, expected {count}")

    def read(self, name: str) -> torch.Tensor:
        """A tensor as it is stored.

        Raises:
            SourceUnusable: the file can't be read.
        """
        path = self.stored[name].file
        with refusing(str(path)):
            if path not in self._open:
                self._open[path] = safe_open(path, framework="pt")
            tensor: torch.Tensor = self._open[path].get_tensor(name)
        return tensor

    def integers(self, name: str) -> npt.NDArray[Any]:
        """A tensor of integers."""
        return self.read(name).numpy()

    def floats(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor of floats of any precision up to float32, as which they are exact."""
        return self.read(name).float().numpy()
