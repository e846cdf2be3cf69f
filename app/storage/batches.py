"""Batches of a user and their lines: make, claim, answer a line, end, list, delete.

What a line was answered is written once, with the batch's count of it, whoever runs it. Every
function that serves a user names that user. Knows no HTTP, and not what is asked in a line.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotKept, QuotaFull
from app.storage.models import Batch, BatchLine, User

ACTIVE: Final = ("validating", "in_progress", "finalizing", "cancelling")
"""Statuses that something is still to be done in."""
MAX_ACTIVE: Final = 50
"""Batches of one user that have not ended."""
MAX_ENDED: Final = 1000
"""Batches of one user that have ended; one more deletes the oldest. Its files stay."""
HOLD: Final = timedelta(seconds=60)
"""How long a process holds a batch without saying so again; then another may go on with it."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of an input file, as it was found there."""

    number: int
    start: int
    length: int
    custom_id: str | None
    outcome: str | None = None
    """What the file of errors says of it, where it can't be asked; None: it can."""


async def add_batch(session: AsyncSession, batch: Batch) -> None:
    """Keep a new batch.

    Raises:
        QuotaFull: the user has as many that have not ended as anybody may.
    """
    active = select(func.count()).where(Batch.user_id == batch.user_id, Batch.status.in_(ACTIVE))
    count = await session.scalar(active) or 0
    if count >= MAX_ACTIVE:
        raise QuotaFull(count + 1, MAX_ACTIVE, "batches that have not ended")
    over = select(Batch.id).where(Batch.user_id == batch.user_id, Batch.status.not_in(ACTIVE))
    surplus = over.order_by(Batch.created_at.desc()).offset(MAX_ENDED - 1)
    await session.execute(delete(Batch).where(Batch.id.in_(surplus)))
    session.add(batch)


async def find_batch(session: AsyncSession, user_id: UUID, batch_id: UUID) -> Batch:
    """Find a batch.

    Raises:
        NotKept: this user has no such batch.
    """
    query = select(Batch).where(Batch.user_id == user_id, Batch.id == batch_id)
    found: Batch | None = await session.scalar(query)
    if found is None:
        raise NotKept("batch", name_of(batch_id))
    return found


async def list_batches(
    session: AsyncSession, user_id: UUID, *, after: Batch | None, limit: int
) -> Sequence[Batch]:
    """List a user's batches, the newest first."""
    query = select(Batch).where(Batch.user_id == user_id)
    if after is not None:
        same = (Batch.created_at == after.created_at) & (Batch.id < after.id)
        query = query.where(or_(Batch.created_at < after.created_at, same))
    ordered = query.order_by(Batch.created_at.desc(), Batch.id.desc())
    return (await session.scalars(ordered.limit(limit))).all()


async def reader_of(session: AsyncSession, file_id: UUID) -> UUID | None:
    """Find a batch that still reads a file."""
    reading = select(Batch.id).where(Batch.input_file == file_id, Batch.status.in_(ACTIVE))
    found: UUID | None = await session.scalar(reading.limit(1))
    return found


def files_being_read() -> Any:
    """A query for the inputs of batches that have not ended: they stay until those have."""
    return select(Batch.input_file).where(Batch.status.in_(ACTIVE))


async def users_with_work(session: AsyncSession) -> Sequence[UUID]:
    """List users who have batches that have not ended."""
    query = select(Batch.user_id).where(Batch.status.in_(ACTIVE)).distinct()
    return (await session.scalars(query)).all()


async def claim(session: AsyncSession, user_id: UUID, holder: UUID) -> Batch | None:
    """Take the oldest batch of a user that has not ended and that nobody else holds."""
    now = datetime.now(UTC)
    free = or_(Batch.held_until.is_(None), Batch.held_until <= now, Batch.holder == holder)
    query = (
        select(Batch)
        .where(Batch.user_id == user_id, Batch.status.in_(ACTIVE), free)
        .order_by(Batch.created_at, Batch.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    found: Batch | None = await session.scalar(query)
    if found is not None:
        found.holder, found.held_until = holder, now + HOLD
    return found


async def hold(session: AsyncSession, holder: UUID) -> None:
    """Say that a process still works on what it holds."""
    values = {"held_until": datetime.now(UTC) + HOLD}
    mine = Batch.holder == holder, Batch.status.in_(ACTIVE)
    await session.execute(update(Batch).where(*mine).values(**values))


async def let_go(session: AsyncSession, holder: UUID) -> None:
    """Let others have what a process holds."""
    values = {"holder": None, "held_until": None}
    await session.execute(update(Batch).where(Batch.holder == holder).values(**values))


async def move(
    session: AsyncSession, batch: Batch, status: str, moment: str = "", **values: Any
) -> bool:
    """Give a batch another status, unless it has left the one that it was read in.

    Args:
        session: writes.
        batch: as it was read; changed too.
        status: the new one.
        moment: the name of the time that is now; empty: `status` with `_at`.
        **values: of other columns.

    Returns:
        Whether it was changed.
    """
    times = msgspec.json.decode(batch.times, type=dict[str, int])
    times[moment or f"{status}_at"] = int(datetime.now(UTC).timestamp())
    values |= {"status": status, "times": msgspec.json.encode(times).decode()}
    ours = update(Batch).where(Batch.id == batch.id, Batch.status == batch.status)
    changed = await session.scalar(ours.values(**values).returning(Batch.id))
    if changed is None:
        return False
    for name, value in values.items():
        setattr(batch, name, value)
    return True


async def is_running(session: AsyncSession, batch: Batch) -> bool:
    """Whether a batch is still to be asked: it is there, and nobody has cancelled it."""
    status = await session.scalar(select(Batch.status).where(Batch.id == batch.id))
    return status == "in_progress"


async def add_lines(session: AsyncSession, batch: Batch, lines: Sequence[Line]) -> None:
    """Note what is in the input; those that can't be asked are answered by it."""
    rows = [
        {
            "batch": batch.id,
            "number": line.number,
            "start": line.start,
            "length": line.length,
            "custom_id": line.custom_id,
            "outcome": line.outcome,
            "good": None if line.outcome is None else False,
        }
        for line in lines
    ]
    await session.execute(insert(BatchLine), rows)


async def forget_lines(session: AsyncSession, batch: Batch) -> None:
    """Delete what was noted of the input."""
    await session.execute(delete(BatchLine).where(BatchLine.batch == batch.id))


async def answered_bytes(session: AsyncSession, batch: Batch) -> int:
    """Count the characters of a batch's answers: as many bytes, where they are ASCII."""
    lengths = select(func.sum(func.length(BatchLine.outcome))).where(BatchLine.batch == batch.id)
    return int(await session.scalar(lengths) or 0)


async def open_lines(
    session: AsyncSession, batch: Batch, after: int, limit: int
) -> Sequence[BatchLine]:
    """List lines that have no answer yet, in the order of the input, after one of them."""
    query = select(BatchLine).where(
        BatchLine.batch == batch.id, BatchLine.outcome.is_(None), BatchLine.number > after
    )
    return (await session.scalars(query.order_by(BatchLine.number).limit(limit))).all()


async def answered_lines(
    session: AsyncSession, batch: Batch, *, good: bool, after: int, limit: int
) -> Sequence[BatchLine]:
    """List lines that have an answer, in the order of the input, after one of them."""
    query = select(BatchLine).where(
        BatchLine.batch == batch.id, BatchLine.good.is_(good), BatchLine.number > after
    )
    return (await session.scalars(query.order_by(BatchLine.number).limit(limit))).all()


async def answer_line(
    session: AsyncSession, batch: Batch, number: int, outcome: str, *, good: bool
) -> None:
    """Write what a line was answered, unless it has been."""
    line = BatchLine.batch == batch.id, BatchLine.number == number, BatchLine.outcome.is_(None)
    written = update(BatchLine).where(*line).values(outcome=outcome, good=good)
    if await session.scalar(written.returning(BatchLine.number)) is None:
        return
    count = Batch.completed if good else Batch.failed
    await session.execute(update(Batch).where(Batch.id == batch.id).values({count: count + 1}))


async def delete_old_batches(session: AsyncSession, since: datetime) -> int:
    """Delete a batch that has ended and was made before a moment.

    Returns:
        How many; 0: there was none left.
    """
    old = Batch.status.not_in(ACTIVE) & (Batch.created_at <= since)
    ids = (await session.scalars(select(Batch.id).where(old).limit(1))).all()
    await session.execute(delete(Batch).where(Batch.id.in_(ids)))
    return len(ids)


async def owner_of(session: AsyncSession, batch: Batch) -> User | None:
    """Find the user whose batch it is."""
    found: User | None = await session.get(User, batch.user_id)
    return found


def name_of(batch_id: UUID) -> str:
    """Tell the id that clients know."""
    return f"batch_{batch_id.hex}"
