"""What requests are told of failures: of their own, and of a thread that has ended."""

import logging

from app.errors import EngineFailure, ShuttingDown
from app.excerpts import shown

logger = logging.getLogger(__name__)


def unforeseen(what: str, error: BaseException) -> EngineFailure:
    """Log an error with its traceback and make the failure that its sequence ends with.

    Args:
        what: was being done, as the subject of "failed".
        error: what it raised; the caller raises the failure from it.
    """
    logger.error("sequence_failed while=%r", what, exc_info=error)
    return EngineFailure(f"{what} failed: {shown(error, 200)}")


def check_goes_on(failure: Exception | None, what: str) -> None:
    """Refuse a request that comes after the end of the thread that would have served it.

    Args:
        failure: why the thread has ended; None: it has not.
        what: has stopped, with its article.

    Raises:
        ShuttingDown: it was told to end; whoever asks again will be answered.
        EngineFailure: it could not go on.
    """
    if isinstance(failure, ShuttingDown):
        raise ShuttingDown
    if failure is not None:
        raise EngineFailure(f"{what} has stopped") from failure
