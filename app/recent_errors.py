"""The last errors and warnings of the log, kept for whoever runs the server.

Only so many, each cut to a length: whatever goes wrong, memory stays as it is. What the security
log says is left out: it has a line for every refused request. Knows nothing of who looks.
"""

import logging
from collections import deque
from datetime import UTC, datetime
from typing import Final

import msgspec

KEPT: Final = 100
MAX_CHARACTERS: Final = 2000
_ELSEWHERE: Final = "app.security"


class LoggedError(msgspec.Struct, frozen=True):
    """One line of the log."""

    at: datetime
    level: str
    logger: str
    message: str
    exception: str | None
    """Its kind and text, without the traceback; None: there was none."""


class RecentErrors(logging.Handler):
    """Keeps them, from when it is attached on."""

    def __init__(self, kept: int = KEPT) -> None:
        """Keep the last `kept`."""
        super().__init__(logging.WARNING)
        self._kept: deque[LoggedError] = deque(maxlen=kept)

    def attach(self) -> None:
        """Listen to every logger of the process."""
        logging.getLogger().addHandler(self)

    def detach(self) -> None:
        """Listen no more."""
        logging.getLogger().removeHandler(self)

    def newest_first(self) -> list[LoggedError]:
        """List what is kept."""
        return list(reversed(self._kept))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line; logging calls this on whatever thread it is logged."""
        if record.name == _ELSEWHERE:
            return
        error = record.exc_info[1] if record.exc_info else None
        self._kept.append(
            LoggedError(
                at=datetime.fromtimestamp(record.created, UTC),
                level=record.levelname.lower(),
                logger=record.name,
                message=record.getMessage()[:MAX_CHARACTERS],
                exception=None if error is None else _told(error),
            )
        )


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_CHARACTERS]
