"""`/v1/batches`: requests of a file that are answered behind all others."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID, uuid4

import msgspec
from litestar import get, post
from litestar.params import FromPath
from msgspec import Meta

from app.auth.guards import SECURITY, SignedInRequest
from app.dialects.kit.body import read_object, takes, to_record
from app.dialects.kit.host import Provided
from app.dialects.kit.query import asks, read_query
from app.dialects.openai.batches.files import key_of
from app.dialects.openai.batches.records import BatchAnswer, BatchBody, BatchList
from app.dialects.openai.batches.room import quota_of
from app.dialects.openai.batches.running import BatchRunner
from app.dialects.openai.ids import id_of
from app.dialects.openai.wire import refusals
from app.errors import InvalidParameter, NotKept, RequestError
from app.settings import Settings
from app.storage import batches, files
from app.storage.database import Database
from app.storage.models import Batch

WINDOW: Final = timedelta(hours=24)
STOPPABLE: Final = ("validating", "in_progress", "finalizing")


class BatchPage(msgspec.Struct, frozen=True, kw_only=True):
    """Which batches to list."""

    after: Annotated[str, Meta(max_length=64, description="Begin after this batch.")] = ""
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


@post(
    "/v1/batches",
    status_code=200,
    summary="Make a batch",
    operation_class=takes(BatchBody),
    security=SECURITY,
    responses=refusals(400, 401, 404, 413),
)
async def make_batch(
    request: SignedInRequest,
    database: Provided[Database],
    runner: Provided[BatchRunner],
    settings: Provided[Settings],
) -> BatchAnswer:
    """Have the requests of one of my files answered, behind those of all who wait for theirs."""
    asked, user_id = to_record(await read_object(request), BatchBody), request.user.user_id
    if not settings.batch_lines_at_once:
        raise RequestError("this server runs no batches: LLMHOST_BATCH_LINES_AT_ONCE is 0")
    now = datetime.now(UTC)
    async with database.write(str(user_id)) as session:
        file = await files.find_file(session, user_id, key_of(asked.input_file_id))
        if file.purpose != "batch":
            limit = "a file whose purpose is batch"
            raise InvalidParameter("input_file_id", asked.input_file_id, limit)
        await files.bytes_left(session, user_id, quota_of(settings))  # for what is answered
        batch = Batch(
            id=uuid4(),
            user_id=user_id,
            input_file=file.id,
            endpoint=asked.endpoint,
            status="validating",
            created_at=now,
            expires_at=now + WINDOW,
            times="{}",
            labels=msgspec.json.encode(asked.metadata).decode(),
            total=0,
            completed=0,
            failed=0,
        )
        await batches.add_batch(session, batch)
    runner.wake()
    return BatchAnswer.of(batch)


@get(
    "/v1/batches",
    summary="List batches",
    operation_class=asks(BatchPage),
    security=SECURITY,
    responses=refusals(400, 401, 404),
)
async def list_batches(request: SignedInRequest, database: Provided[Database]) -> BatchList:
    """List my batches, the newest first."""
    page, user_id = read_query(request, BatchPage), request.user.user_id
    async with database.read(str(user_id)) as session:
        after = None
        if page.after:
            after = await batches.find_batch(session, user_id, _key_of(page.after))
        found = await batches.list_batches(session, user_id, after=after, limit=page.limit + 1)
    return BatchList.of([BatchAnswer.of(batch) for batch in found], page.limit)


@get(
    "/v1/batches/{batch_id:str}",
    summary="Show a batch",
    security=SECURITY,
    responses=refusals(400, 401, 404),
)
async def show_batch(
    request: SignedInRequest, database: Provided[Database], batch_id: FromPath[str]
) -> BatchAnswer:
    """Show how far one of my batches is."""
    user_id = request.user.user_id
    async with database.read(str(user_id)) as session:
        return BatchAnswer.of(await batches.find_batch(session, user_id, _key_of(batch_id)))


@post(
    "/v1/batches/{batch_id:str}/cancel",
    status_code=200,
    summary="Cancel a batch",
    security=SECURITY,
    responses=refusals(400, 401, 404),
)
async def cancel_batch(
    request: SignedInRequest,
    database: Provided[Database],
    runner: Provided[BatchRunner],
    batch_id: FromPath[str],
) -> BatchAnswer:
    """Ask no further line of one of my batches; what has been answered is kept."""
    user_id, key = request.user.user_id, _key_of(batch_id)
    async with database.write(str(user_id)) as session:
        batch = await batches.find_batch(session, user_id, key)
        if batch.status not in STOPPABLE:
            raise RequestError(f"a batch that is {batch.status} can't be cancelled")
        await batches.move(session, batch, "cancelling")
    runner.wake()
    return BatchAnswer.of(batch)


def _key_of(batch_id: str) -> UUID:
    key = id_of("batch", batch_id)
    if key is None:
        raise NotKept("batch", batch_id)
    return key
