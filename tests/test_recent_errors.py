"""What is kept of the log for the operator's page."""

import logging

from app.recent_errors import MAX_CHARACTERS, RecentErrors

logger = logging.getLogger("app.test")


def test_the_last_warnings_and_errors_are_kept_newest_first_and_no_more_than_so_many():
    kept = RecentErrors(kept=3)
    kept.attach()
    try:
        logger.info("harmless")
        for number in range(5):
            logger.warning("warned n=%d", number)
        error = ZeroDivisionError("by nothing")
        logger.error("broke path=%s", "x" * 10_000, exc_info=error)
        logging.getLogger("app.security").warning("access_refused")
    finally:
        kept.detach()
    logger.error("after")
    found = kept.newest_first()
    assert [error.level for error in found] == ["error", "warning", "warning"]
    assert [error.message for error in found[1:]] == ["warned n=4", "warned n=3"]
    assert found[0].exception == "ZeroDivisionError: by nothing"
    assert len(found[0].message) == MAX_CHARACTERS
    assert found[0].logger == "app.test"
