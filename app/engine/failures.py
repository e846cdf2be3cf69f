"""What becomes of an error that nobody foresaw: the failure of one sequence, and a log line."""

import logging

from app.errors import EngineFailure
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
