"""What a window of counts says of a client, wherever it is counted."""

from typing import NamedTuple


class Standing(NamedTuple):
    """Where a client stands in a window."""

    used: int
    free_in_s: float
    """Seconds until the oldest of these counts leaves the window; 0: there is none."""
