"""A file for arrays that are too large to be held, each of them mapped while it is looked at.

What is mapped is written back and dropped by the system when memory is wanted elsewhere. Knows
nothing about what the arrays mean.
"""

import math
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from export.errors import NoRoom

PAGE_BYTES: Final = 4096

Array = npt.NDArray[np.generic]


class Spill:
    """A file that grows by an array at a time, and is deleted with the end of the block."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._size = 0

    def __enter__(self) -> Self:
        self.path.write_bytes(b"")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.path.unlink(missing_ok=True)

    def room(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Zeros to write into, at a place of their own in the file.

        Raises:
            NoRoom: the disk is full.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        start = self._size
        try:
            with self.path.open("r+b") as file:
                # reserved now: on a full disk the process would be ended when it writes to a page
                os.posix_fallocate(file.fileno(), start, size)
        except OSError as error:
            raise NoRoom(
                f"{self.path.parent} has no room for {size} bytes more: {error.strerror}"
            ) from error
        self._size = start + size + -size % PAGE_BYTES
        return np.memmap(self.path, np.dtype(dtype), "r+", start, shape)

    def cut(self, size: int) -> None:
        """Forget what was written since the file had this size."""
        with self.path.open("r+b") as file:
            file.truncate(size)
        self._size = size

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size


def place_of(value: Array) -> tuple[Path, int] | None:
    """The file and the offset that an array is mapped from; None if it isn't, or only in part."""
    if isinstance(value, np.memmap) and isinstance(value.base, mmap.mmap):
        return Path(str(value.filename)), int(value.offset)
    return None
