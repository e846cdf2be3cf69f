"""What is noted of a batch's lines before they are asked, and the files of results at its end."""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from app.dialects.kit.body_size import num_values
from app.dialects.openai.batches.input import BadLine, RawLine, check_new, read_line
from app.dialects.openai.batches.records import batch_error, error_line
from app.settings import Settings
from app.storage import batches
from app.storage.database import Database
from app.storage.files import FileWriter
from app.storage.models import Batch

EXPIRED_AT_ONCE: Final = 500
READ_AT_ONCE: Final = 20
"""Answers that lie in memory."""


async def noted_line(
    raw: RawLine, endpoint: str, limits: Settings, seen: set[bytes]
) -> tuple[batches.Line, msgspec.Raw | None]:
    """Make the note of a line, and the error that it has, if it has one.

    Args:
        raw: the line.
        endpoint: the path that its batch is for.
        limits: bytes and values that a body may have; a line may not have more.
        seen: digests of the ids of lines before it; gets its own.
    """
    custom_id = outcome = error = None
    try:
        await _check_values(raw, limits.max_body_values)
        custom_id = read_line(raw.text, endpoint, limits.max_body_bytes).custom_id
        check_new(custom_id, seen)
    except BadLine as bad:
        told = bad.detail
        custom_id, number = bad.custom_id, raw.number + 1
        outcome = error_line(custom_id, told.code or "", f"line {number}: {told.message}")
        error = batch_error(told.code or "", told.message, told.param, number)
    line = batches.Line(
        number=raw.number,
        start=raw.start,
        length=raw.length,
        custom_id=custom_id and custom_id.replace("\0", "\ufffd"),  # PostgreSQL can't hold NUL
        outcome=outcome,
    )
    return line, error


async def _check_values(raw: RawLine, most: int) -> None:
    """Refuse a line whose decoding would hold the event loop."""
    if raw.text is not None and await num_values(raw.text, most) > most:
        raise BadLine("line_too_long", f"the line has more than {most} values")


async def expire_lines(database: Database, batch: Batch) -> None:
    """Answer what is left of a batch by saying that it was not asked in time."""
    while True:
        async with database.write(str(batch.user_id)) as session:
            left = await batches.open_lines(session, batch, -1, EXPIRED_AT_ONCE)
            for line in left:
                message = "the batch expired before this line was asked"
                outcome = error_line(line.custom_id, "batch_expired", message)
                await batches.answer_line(session, batch, line.number, outcome, good=False)
        if not left:
            return


async def end_batch(database: Database, batch: Batch, status: str, life: timedelta) -> bool:
    """Write the files of a batch's results, and show them with its last status.

    A process that has stood still may find that another one has gone on and ended the batch: then
    nobody ever sees what it wrote.

    Args:
        database: where it all lies.
        batch: as it was read.
        status: its last.
        life: how long the files are kept; 0: until they are deleted.

    Returns:
        Whether it was ended here.
    """
    output = await _write_results(database, batch, life, good=True)
    errors = await _write_results(database, batch, life, good=False)
    written = [writer for writer in (output, errors) if writer is not None]
    async with database.write(str(batch.user_id)) as session:
        ended = await batches.move(
            session,
            batch,
            status,
            output_file=None if output is None else output.file_id,
            error_file=None if errors is None else errors.file_id,
        )
        if ended:
            for writer in written:
                await writer.show(session)
            await batches.forget_lines(session, batch)
    if not ended:
        for writer in written:
            await writer.undo()
    return ended


async def _write_results(
    database: Database, batch: Batch, life: timedelta, *, good: bool
) -> FileWriter | None:
    """Write the file of a batch's answers; nobody sees it before it is shown.

    Args:
        database: where it lies.
        batch: whose answers.
        life: how long the file is kept; 0: until it is deleted.
        good: whether of those that succeeded, or of the others.

    Returns:
        The file; None: there are no such answers.
    """
    writer, after = FileWriter(database, batch.user_id), -1
    while True:
        async with database.read(str(batch.user_id)) as session:
            lines = await batches.answered_lines(
                session, batch, good=good, after=after, limit=READ_AT_ONCE
            )
        if after < 0:
            if not lines:
                return None
            name = f"{batches.name_of(batch.id)}_{'output' if good else 'error'}.jsonl"
            await writer.begin(name, "batch_output", datetime.now(UTC) + life if life else None)
        for line in lines:
            await writer.write(f"{line.outcome}\n".encode())
            after = line.number
        if len(lines) < READ_AT_ONCE:
            await writer.flush()
            return writer
