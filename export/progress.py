"""Show how far a step is and how long it still takes, below the bar of the steps."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def shown(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Go through some items with a bar, which is gone at the end.

    Args:
        items: that take about as long each.
        what: is done with them, in a few words.
        total: their number, where they don't know it.
    """
    yield from tqdm(items, desc=f"  {what}", total=total, leave=False, delay=1)
