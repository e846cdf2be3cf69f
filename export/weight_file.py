"""Keep the weights of a torch model in a file that is mapped, instead of in memory.

While Transformers loads a model, each tensor goes into the file as soon as it is converted or
dequantised; the model's parameters are views of the mapping. What a module has read of it is
unmapped behind it, so that one module's weights are in memory at a time, and the system may drop
those. Knows nothing about models.
"""

import math
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import modeling_gguf_pytorch_utils, modeling_utils

from export.errors import NoRoom

ARENA_BYTES: Final = 1 << 30
"""What is mapped at once, unless a tensor is larger; each mapping keeps a file open."""
PAGE_BYTES: Final = mmap.ALLOCATIONGRANULARITY


class WeightFile:
    """A file of tensors, which is deleted with the end of the block."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._arenas: list[tuple[int, mmap.mmap]] = []
        """Where each begins in the file."""
        self._end = 0
        """Of what is taken of the last arena, in the file."""
        self._places: dict[int, int] = {}
        """By address of a tensor: where it begins in the file."""

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

    def take(self, tensor: Tensor) -> Tensor:
        """Put a tensor into the file; returns it from there, as it can be read and changed.

        Raises:
            NoRoom: the disk is full.
        """
        if not tensor.numel() or self._has(tensor):
            return tensor
        there = self.room(tuple(tensor.shape), tensor.dtype)
        there.copy_(tensor)
        self.release()
        return there

    def room(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor in the file, to be written to; of at least one element.

        Raises:
            NoRoom: the disk is full.
        """
        size = math.prod(shape) * dtype.itemsize
        start, arena = self._room(size)
        there = torch.frombuffer(
            arena, dtype=dtype, count=math.prod(shape), offset=self._end - start
        ).view(shape)
        self._places[there.data_ptr()] = self._end
        self._end += size + -size % PAGE_BYTES
        return there

    def place(self, tensor: Tensor) -> int:
        """Where a tensor begins in the file, which it is put into if it isn't there."""
        return self._places[self.take(tensor).data_ptr()]

    def _has(self, tensor: Tensor) -> bool:
        return tensor.data_ptr() in self._places and tensor.is_contiguous()

    @property
    def size(self) -> int:
        """Bytes that are taken."""
        return self._end

    def release(self) -> None:
        """Unmap what has been read or written; it stays in the file."""
        for _, arena in self._arenas:
            arena.madvise(mmap.MADV_DONTNEED)

    def _room(self, size: int) -> tuple[int, mmap.mmap]:
        """The arena with room for some bytes from `_end` on, and where it begins."""
        try:
            with self.path.open("r+b") as file:
                if not self._arenas or self._end + size > self._last_end():
                    self._end = self._last_end()
                    length = max(ARENA_BYTES, size + -size % PAGE_BYTES)
                    file.truncate(self._end + length)
                    arena = mmap.mmap(file.fileno(), length, offset=self._end)
                    self._arenas.append((self._end, arena))
                # reserved now: on a full disk the process would be ended when it writes to a page
                os.posix_fallocate(file.fileno(), self._end, size)
        except OSError as error:
            raise NoRoom(
                f"{self.path.parent} has no room for {size} bytes more: {error.strerror}"
            ) from error
        return self._arenas[-1]

    def _last_end(self) -> int:
        return self._arenas[-1][0] + len(self._arenas[-1][1]) if self._arenas else 0


@contextmanager
def loading_into(file: WeightFile) -> Iterator[Mapping[str, Tensor]]:
    """Have Transformers put each weight that it loads into a file.

    Yields:
        What was loaded, by the model's names; of several names of one weight, each as it is stored.
    """
    original = modeling_utils._load_parameter_into_model  # noqa: SLF001 - it has no public door
    loaded: dict[str, Tensor] = {}

    def load(model: Any, name: str, tensor: Tensor) -> None:
        loaded[name] = file.take(tensor)
        original(model, name, loaded[name])

    with (
        patch.object(modeling_utils, "_load_parameter_into_model", load),
        patch.object(modeling_gguf_pytorch_utils, "np", _Numpy(file)),
    ):
        yield loaded


class _Numpy:
    """NumPy for the reader of GGUF files, whose last act is to copy each tensor."""

    def __init__(self, file: WeightFile) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def copy(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Copy an array into the file."""
        return self._file.take(torch.from_numpy(np.copy(array))).numpy()


def release_behind_modules(model: nn.Module, file: WeightFile) -> None:
    """Unmap what a module has read of its weights each time that it has run."""

    def release(*_: Any) -> None:
        file.release()

    for module in model.modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_hook(release)
