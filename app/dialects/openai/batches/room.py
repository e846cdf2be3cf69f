"""Whether the answers of a batch still have room among its user's files.

Answers become files at the end of a batch, and those are kept in any case: so nothing more is asked
once they would be too large. Knows no lines.
"""

from app.settings import Settings
from app.storage import batches, files
from app.storage.database import Database
from app.storage.files import Quota
from app.storage.models import Batch


def quota_of(settings: Settings) -> Quota:
    """What one user may keep."""
    return Quota(
        file_bytes=settings.file_mb * 1_000_000, num_bytes=settings.file_mb_per_user * 1_000_000
    )


class Room:
    """Room for a batch that runs; a user's batches run one after the other."""

    def __init__(self, database: Database, settings: Settings, batch: Batch) -> None:
        self._database = database
        self._batch = batch
        self._limit = quota_of(settings).num_bytes
        self._answered: int | None = None
        """Bytes of its answers; None: not counted yet."""

    def add(self, outcome: str) -> None:
        """Count an answer that was written down."""
        if self._answered is not None:
            self._answered += len(outcome.encode())

    async def full(self) -> bool:
        """Whether the files and the answers so far are as much as is kept for one user."""
        if not self._limit:
            return False
        user_id = self._batch.user_id
        async with self._database.read(str(user_id)) as session:
            if self._answered is None:
                # two lines may count at once: then the answer of one is not among them
                self._answered = await batches.answered_bytes(session, self._batch)
            kept = await files.bytes_of_files(session, user_id)
        return kept + self._answered >= self._limit
