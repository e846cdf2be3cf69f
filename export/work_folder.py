"""One export at a time in a work folder. Knows nothing about what lies in it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from export.errors import AtWork


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder and keep other exports out of it; one that ends up empty is removed.

    The folder itself is locked: nothing stays beside it, and a killed export holds nothing.

    Raises:
        AtWork: another export works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AtWork(folder.name) from error
        if not _is_still(folder, descriptor):
            raise AtWork(folder.name)  # one that has just ended removed it
        try:
            yield
        finally:
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
    finally:
        os.close(descriptor)


def _is_still(folder: Path, descriptor: int) -> bool:
    return folder.exists() and os.path.samestat(folder.stat(), os.fstat(descriptor))
