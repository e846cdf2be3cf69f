"""Refuse an export that the disk or the memory is too small for, before it begins.

What is estimated is the most that any step takes; bench/LOG.md has what some took. Knows the sizes
of tensors, not what they are.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from export.errors import NoRoom

BASE_BYTES: Final = 500_000_000
"""Python with torch, Transformers and ONNX Runtime."""
LOGITS: Final = 6 * 256
"""Tokens' logits that are held at once, in float32, where two graphs are compared."""
MXFP4: Final = "_blocks"
"""How names of weights in MXFP4 end."""
MEMINFO: Final = Path("/proc/meminfo")
CGROUP: Final = Path("/sys/fs/cgroup")

Scheme = Literal["none", "w8a8", "int8", "int4"]
WEIGHT_BYTES: Final[Mapping[str, float]] = {"none": 4, "w8a8": 1.1, "int8": 1.2, "int4": 0.7}
"""Of a weight in the finished model."""


@dataclass(frozen=True)
class Sizes:
    """What the need grows with."""

    weights: int
    """Numbers in all tensors."""
    largest: int
    """Numbers in the largest."""
    vocabulary: int
    """Rows of the largest matrix, which stacks of experts are not."""
    width: int
    """The widest input of a matrix."""


def sizes_of(shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
    """Look at the shapes of a model's tensors."""
    matrices = [shape for shape in shapes.values() if len(shape) == 2]
    head = max(matrices, key=math.prod, default=(0, 0))
    others = [max(shape) for shape in matrices if head[0] not in shape]
    # a byte of MXFP4's blocks holds two numbers
    each = [math.prod(s) * (2 if name.endswith(MXFP4) else 1) for name, s in shapes.items()]
    return Sizes(
        weights=sum(each),
        largest=max(each, default=0),
        vocabulary=head[0],
        width=max(others, default=max(head)),
    )


def disk_bytes(sizes: Sizes, scheme: Scheme, dtype: str, *, keep_work: bool) -> int:
    """What the steps' files and the model take at most."""
    each = 2 if dtype == "float16" else 4
    weights, largest = sizes.weights, sizes.largest
    # the loaded weights, those made of them, and the cleaned graph, which has a tied matrix twice
    cleaning = each * (3.2 * weights + 2 * largest)
    finished = 2 * WEIGHT_BYTES[scheme] * weights
    rotated = 1.5 * weights + largest if scheme == "w8a8" else 0
    kept = weights if keep_work else 0
    quantising = each * (weights + largest + rotated + kept) + finished
    return int(max(cleaning, quantising))


def memory_bytes(sizes: Sizes, scheme: Scheme) -> int:
    """What a step holds at most, without pages of mapped files."""
    matrix = 4 * sizes.largest
    loading = 1.5 * matrix  # as it is stored, and in float32
    logits = 4 * LOGITS * sizes.vocabulary
    rounding = 16 * sizes.width**2 if scheme == "w8a8" else 0
    calibrating = max(matrix + logits, rounding) if scheme == "w8a8" else 0
    serving = WEIGHT_BYTES[scheme] * sizes.weights + logits
    return int(BASE_BYTES + max(loading, calibrating, serving))


def memory_available() -> int | None:
    """Bytes that this process may still take; None where that isn't known."""
    if not MEMINFO.is_file():
        return None
    fields = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
    found = [int(fields["MemAvailable"].split()[0]) * 1024]
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found)


def refuse_without_room(
    folder: Path,
    shapes: Mapping[str, tuple[int, ...]],
    scheme: Scheme,
    dtype: str,
    *,
    keep_work: bool,
) -> str:
    """Compare what an export takes with what there is; returns that in words.

    Args:
        folder: where the steps' files go.
        shapes: of the source's tensors.
        scheme: of the finished model.
        dtype: of the graph.
        keep_work: whether all steps' files are kept.

    Raises:
        NoRoom: the disk or the memory is too small.
    """
    sizes = sizes_of(shapes)
    disk, memory = (
        disk_bytes(sizes, scheme, dtype, keep_work=keep_work),
        memory_bytes(sizes, scheme),
    )
    free, available = shutil.disk_usage(folder).free, memory_available()
    takes = f"this export takes up to {_gb(disk)} of disk and {_gb(memory)} of memory"
    if free < disk:
        raise NoRoom(f"{takes}; {folder} has {_gb(free)} free")
    if available is not None and available < memory:
        raise NoRoom(f"{takes}; {_gb(available)} of memory are available")
    return f"takes up to {_gb(disk)} of disk, {_gb(memory)} of memory"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
