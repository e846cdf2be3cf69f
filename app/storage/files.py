"""Files of a user, in pieces: write, list, read, delete.

A file lies in the database, so that it goes with its user, is in every backup, and can be read by
every process that shares the users. Every function that serves a user names that user. Knows no
HTTP, and not what is in a file.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotKept, QuotaFull
from app.storage.database import Database
from app.storage.models import FILE_NAME_CHARACTERS, FilePiece, StoredFile

PIECE_BYTES: Final = 262_144
"""Bytes of each piece of a file but its last."""
MAX_FILES: Final = 1000
"""Files that one user may have."""
MAX_UPLOADS: Final = 4
"""Files that one user may be sending: each may use all the room that there is when it begins."""
UNLIMITED: Final = 2**62
UPLOAD_LIFE: Final = timedelta(hours=1)
"""How long a file may take to be written: one that is not whole by then never will be."""
_NUL: Final = str.maketrans({"\0": "\ufffd"})


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept for one user; 0 is no limit."""

    file_bytes: int
    """Of one file."""
    num_bytes: int
    """Of all files."""


class FileWriter:
    """Writes one file, a piece at a time; nobody sees it before it is whole."""

    def __init__(self, database: Database, user_id: UUID) -> None:
        self.file_id = uuid4()
        self.num_bytes = 0
        self._database = database
        self._user_id = user_id
        self._held = bytearray()
        self._num_pieces = 0

    async def begin(
        self,
        filename: str,
        purpose: str,
        expires_at: datetime | None,
        quota: "Quota | None" = None,
    ) -> int:
        """Make the file.

        Args:
            filename: what its user calls it.
            purpose: what it is for.
            expires_at: when it will be deleted; None: never.
            quota: of its user; None: it is kept in any case.

        Returns:
            How many bytes it may have.

        Raises:
            QuotaFull: there is no room for a file.
        """
        async with self._database.write(str(self._user_id)) as session:
            room = UNLIMITED
            if quota is not None:
                room = await room_for_files(session, self._user_id, quota)
            session.add(
                StoredFile(
                    id=self.file_id,
                    user_id=self._user_id,
                    filename=filename.translate(_NUL)[:FILE_NAME_CHARACTERS],
                    purpose=purpose,
                    num_bytes=0,
                    created_at=datetime.now(UTC),
                    expires_at=expires_at,
                    whole=False,
                )
            )
        return room

    async def write(self, data: bytes) -> None:
        """Add bytes to its end."""
        self._held += data
        self.num_bytes += len(data)
        while len(self._held) >= PIECE_BYTES:
            await self._put(bytes(self._held[:PIECE_BYTES]))
            del self._held[:PIECE_BYTES]

    async def end(self, filename: str | None = None, expires_at: datetime | None = None) -> None:
        """Write what is left and let its user see it.

        Args:
            filename: another name; None: as it began.
            expires_at: another end; None: as it began.
        """
        await self.flush()
        async with self._database.write(str(self._user_id)) as session:
            await self.show(session, filename, expires_at)

    async def flush(self) -> None:
        """Write what is left, after the last bytes."""
        if self._held:
            await self._put(bytes(self._held))
            self._held.clear()

    async def show(
        self,
        session: AsyncSession,
        filename: str | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        """Let its user see it, in a transaction of the caller's; all has been written."""
        values: dict[str, object] = {"num_bytes": self.num_bytes, "whole": True}
        if filename is not None:
            values["filename"] = filename.translate(_NUL)[:FILE_NAME_CHARACTERS]
        if expires_at is not None:
            values["expires_at"] = expires_at
        own = StoredFile.id == self.file_id
        await session.execute(update(StoredFile).where(own).values(**values))

    async def undo(self) -> None:
        """Delete what there is of it."""
        async with self._database.write(str(self._user_id)) as session:
            await session.execute(delete(StoredFile).where(StoredFile.id == self.file_id))

    async def _put(self, data: bytes) -> None:
        piece = FilePiece(file=self.file_id, number=self._num_pieces, data=data)
        async with self._database.write(str(self._user_id)) as session:
            session.add(piece)
        self._num_pieces += 1


async def room_for_files(session: AsyncSession, user_id: UUID, quota: Quota) -> int:
    """Say how many bytes a further file may have that is sent.

    Raises:
        QuotaFull: there is no room for any.
    """
    left = await bytes_left(session, user_id, quota)
    since = datetime.now(UTC) - UPLOAD_LIFE
    begun = StoredFile.whole.is_(False), StoredFile.created_at >= since
    uploads = await session.scalar(
        select(func.count()).where(StoredFile.user_id == user_id, *begun)
    )
    if (uploads or 0) >= MAX_UPLOADS:
        raise QuotaFull((uploads or 0) + 1, MAX_UPLOADS, "files that are not whole")
    return min(left, quota.file_bytes or UNLIMITED)


async def bytes_left(session: AsyncSession, user_id: UUID, quota: Quota) -> int:
    """Say how many bytes more a user's files may have.

    Raises:
        QuotaFull: none, or there are as many files as may be.
    """
    kept = select(func.count()).where(StoredFile.user_id == user_id)
    count = await session.scalar(kept) or 0
    if count >= MAX_FILES:
        raise QuotaFull(count + 1, MAX_FILES, "files")
    if not quota.num_bytes:
        return UNLIMITED
    used = await bytes_of_files(session, user_id)
    if used >= quota.num_bytes:
        raise QuotaFull(used + 1, quota.num_bytes, "bytes of files")
    return quota.num_bytes - used


async def bytes_of_files(session: AsyncSession, user_id: UUID) -> int:
    """Count the bytes of a user's files."""
    kept = select(func.sum(StoredFile.num_bytes)).where(StoredFile.user_id == user_id)
    return int(await session.scalar(kept) or 0)


async def find_file(
    session: AsyncSession, user_id: UUID, file_id: UUID, *, expired: bool = False
) -> StoredFile:
    """Find a file that is whole.

    Args:
        session: reads.
        user_id: whose file.
        file_id: which.
        expired: whether it may have expired, if it is still there.

    Raises:
        NotKept: this user has no such file, or not any more.
    """
    query = _visible(user_id, expired=expired).where(StoredFile.id == file_id)
    found: StoredFile | None = await session.scalar(query)
    if found is None:
        raise NotKept("file", name_of(file_id))
    return found


async def list_files(
    session: AsyncSession,
    user_id: UUID,
    *,
    purpose: str | None,
    after: StoredFile | None,
    limit: int,
    ascending: bool,
) -> Sequence[StoredFile]:
    """List a user's files by age."""
    query = _visible(user_id)
    if purpose is not None:
        query = query.where(StoredFile.purpose == purpose)
    at, key = StoredFile.created_at, StoredFile.id
    if after is not None:
        later = or_(at > after.created_at, (at == after.created_at) & (key > after.id))
        earlier = or_(at < after.created_at, (at == after.created_at) & (key < after.id))
        query = query.where(later if ascending else earlier)
    order = (at, key) if ascending else (at.desc(), key.desc())
    found: Sequence[StoredFile] = (await session.scalars(query.order_by(*order).limit(limit))).all()
    return found


async def pieces_of(database: Database, file: StoredFile) -> AsyncGenerator[bytes, None]:
    """Read a file, each piece on its own: no slow reader keeps a connection to the database."""
    for number in range(-(-file.num_bytes // PIECE_BYTES)):
        yield await _piece(database, file, number)


async def part_of(database: Database, file: StoredFile, start: int, length: int) -> bytes:
    """Read some bytes of a file."""
    first, last = start // PIECE_BYTES, (start + length - 1) // PIECE_BYTES
    pieces = [await _piece(database, file, number) for number in range(first, last + 1)]
    begin = start - first * PIECE_BYTES
    return b"".join(pieces)[begin : begin + length]


async def delete_file(session: AsyncSession, user_id: UUID, file_id: UUID) -> None:
    """Delete a file.

    Raises:
        NotKept: this user has no such file.
    """
    file = await find_file(session, user_id, file_id)
    await session.execute(delete(StoredFile).where(StoredFile.id == file.id))


async def delete_expired_files(session: AsyncSession, spared: Any = ()) -> int:
    """Delete a file that has expired, or that was never whole.

    Args:
        session: writes.
        spared: ids of files that stay, or a query for them.

    Returns:
        How many; 0: there was none left.
    """
    now = datetime.now(UTC)
    unfinished = StoredFile.whole.is_(False) & (StoredFile.created_at < now - UPLOAD_LIFE)
    over = or_(StoredFile.expires_at <= now, unfinished), StoredFile.id.not_in(spared)
    expired = select(StoredFile.id).where(*over).limit(1)
    ids = (await session.scalars(expired)).all()
    await session.execute(delete(StoredFile).where(StoredFile.id.in_(ids)))
    return len(ids)


def name_of(file_id: UUID) -> str:
    """Tell the id that clients know."""
    return f"file-{file_id.hex}"


def _visible(user_id: UUID, *, expired: bool = False) -> Any:
    whole = select(StoredFile).where(StoredFile.user_id == user_id, StoredFile.whole.is_(True))
    alive = or_(StoredFile.expires_at.is_(None), StoredFile.expires_at > datetime.now(UTC))
    return whole if expired else whole.where(alive)


async def _piece(database: Database, file: StoredFile, number: int) -> bytes:
    query = select(FilePiece.data).where(FilePiece.file == file.id, FilePiece.number == number)
    async with database.read(str(file.user_id)) as session:
        data: bytes | None = await session.scalar(query)
    if data is None:
        raise NotKept("file", name_of(file.id))
    return data
