"""How much memory this process holds at most while a block runs, by sampling.

Anonymous memory is what the process has of its own; pages of mapped files can be dropped and read
again. Knows Linux's /proc; elsewhere nothing is known.
"""

import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

STATUS: Final = Path("/proc/self/status")
INTERVAL_S: Final = 0.02


def resident() -> dict[str, int]:
    """Bytes of this process in memory, by kind, as Linux names them; empty where it doesn't."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.startswith("Rss"))
    return {name.rstrip(":"): int(kilobytes) * 1024 for name, kilobytes, _ in fields}


class PeakMemory:
    """Samples from entering the block to leaving it."""

    def __init__(self) -> None:
        self.anonymous = 0
        """Bytes, at the most."""
        self.resident = 0
        """Bytes, at the most, with pages of mapped files."""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def __str__(self) -> str:
        return f"{self.anonymous / 1e6:6.0f} MB" if self.resident else ""

    def _sample(self) -> None:
        while not self._done.wait(INTERVAL_S):
            self._look()

    def _look(self) -> None:
        held = resident()
        self.anonymous = max(self.anonymous, held.get("RssAnon", 0))
        self.resident = max(self.resident, sum(held.values()))
