"""`/v1/files`: what a user uploads for batches, and what comes out of them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Response, delete, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody
from litestar.params import FromPath
from msgspec import Meta

from app.auth.guards import SECURITY, SignedInRequest
from app.dialects.kit.body import to_record
from app.dialects.kit.host import Provided
from app.dialects.kit.pieces import Pieces
from app.dialects.kit.query import asks, read_query
from app.dialects.openai.batches.listing import Listing
from app.dialects.openai.batches.room import quota_of
from app.dialects.openai.batches.uploads import MULTIPART, receive_file
from app.dialects.openai.ids import id_of
from app.dialects.openai.wire import refusals
from app.errors import NotKept, RequestError
from app.settings import Settings
from app.storage import batches, files
from app.storage.database import Database
from app.storage.files import FileWriter
from app.storage.models import StoredFile

MEDIA_TYPE: Final = "application/octet-stream"
_EXPIRES_AFTER: Final = {name: f"expires_after[{name}]" for name in ("anchor", "seconds")}
"""How a form writes the fields of `expires_after`."""


class ExpiresAfter(msgspec.Struct, frozen=True, kw_only=True):
    """When a file is deleted."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=3600, le=2_592_000)]


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """The fields beside a file."""

    purpose: Annotated[Literal["batch"], Meta(description="What the file is for.")]
    expires_after: ExpiresAfter | None = None

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> "Upload":
        """Read the fields of a form, in which `a[b]` is the field `b` of `a`.

        Raises:
            InvalidParameter: the first field that is missing or wrong.
        """
        given: dict[str, Any] = {name: fields[name] for name in ("purpose",) if name in fields}
        inner = {name: fields[key] for name, key in _EXPIRES_AFTER.items() if key in fields}
        return to_record(given | ({"expires_after": inner} if inner else {}), cls, strict=False)


class FileAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None

    @classmethod
    def of(cls, file: StoredFile) -> "FileAnswer":
        """Make one of what is stored."""
        return cls(
            id=files.name_of(file.id),
            bytes=file.num_bytes,
            created_at=int(file.created_at.timestamp()),
            expires_at=None if file.expires_at is None else int(file.expires_at.timestamp()),
            filename=file.filename,
            purpose=file.purpose,
        )


class FilesPage(msgspec.Struct, frozen=True, kw_only=True):
    """Which files to list."""

    after: Annotated[str, Meta(max_length=64, description="Begin after this file.")] = ""
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 10_000
    order: Literal["asc", "desc"] = "desc"
    purpose: Annotated[str, Meta(max_length=64, pattern="^[a-z_]*$")] | None = None


class FileList(Listing, frozen=True, kw_only=True):
    """Files of a user."""

    data: list[FileAnswer]


class DeletedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is not kept any more."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


@dataclass
class _TakesForm(Operation):
    """For the OpenAPI document: a form with a file."""

    def __post_init__(self) -> None:
        records = msgspec.json.schema(Upload)["$defs"]
        inner = records["ExpiresAfter"]["properties"]
        schema: Any = {
            "type": "object",
            "properties": {
                "file": {"type": "string", "format": "binary"},
                "purpose": records["Upload"]["properties"]["purpose"],
                **{key: inner[name] for name, key in _EXPIRES_AFTER.items()},
            },
            "required": ["file", "purpose"],
        }
        self.request_body = RequestBody(
            content={MULTIPART: OpenAPIMediaType(schema=schema)}, required=True
        )


@post(
    "/v1/files",
    status_code=200,
    summary="Upload a file",
    operation_class=_TakesForm,
    request_max_body_size=None,
    security=SECURITY,
    responses=refusals(400, 401, 413),
)
async def upload_file(
    request: SignedInRequest, database: Provided[Database], settings: Provided[Settings]
) -> FileAnswer:
    """Upload the input of batches: a line of JSON for each request."""
    user_id = request.user.user_id
    writer = FileWriter(database, user_id)
    room = await writer.begin("", "batch", None, quota_of(settings))
    try:
        fields = await receive_file(request, writer, room)
        expires = Upload.of(fields).expires_after
        life = timedelta(days=settings.file_days)
        if expires is not None:
            life = timedelta(seconds=expires.seconds)
        expires_at = datetime.now(UTC) + life if life else None
        await writer.end(fields["filename"], expires_at)
    except BaseException:
        await asyncio.shield(writer.undo())
        raise
    async with database.read(str(user_id)) as session:
        return FileAnswer.of(await files.find_file(session, user_id, writer.file_id))


@get(
    "/v1/files",
    summary="List files",
    operation_class=asks(FilesPage),
    security=SECURITY,
    responses=refusals(400, 401, 404),
)
async def list_files(request: SignedInRequest, database: Provided[Database]) -> FileList:
    """List my files by age."""
    page, user_id = read_query(request, FilesPage), request.user.user_id
    async with database.read(str(user_id)) as session:
        after = None
        if page.after:
            after = await files.find_file(session, user_id, key_of(page.after))
        found = await files.list_files(
            session,
            user_id,
            purpose=page.purpose,
            after=after,
            limit=page.limit + 1,
            ascending=page.order == "asc",
        )
    return FileList.of([FileAnswer.of(file) for file in found], page.limit)


@get(
    "/v1/files/{file_id:str}",
    summary="Show a file",
    security=SECURITY,
    responses=refusals(400, 401, 404),
)
async def show_file(
    request: SignedInRequest, database: Provided[Database], file_id: FromPath[str]
) -> FileAnswer:
    """Show what is known of one of my files."""
    user_id = request.user.user_id
    async with database.read(str(user_id)) as session:
        return FileAnswer.of(await files.find_file(session, user_id, key_of(file_id)))


@get(
    "/v1/files/{file_id:str}/content",
    media_type=MEDIA_TYPE,
    summary="Read a file",
    security=SECURITY,
    responses={
        200: ResponseSpec(
            bytes, description="The file", media_type=MEDIA_TYPE, generate_examples=False
        ),
        **refusals(400, 401, 404),
    },
)
async def read_file(
    request: SignedInRequest, database: Provided[Database], file_id: FromPath[str]
) -> Response[Any]:
    """Read one of my files."""
    user_id = request.user.user_id
    async with database.read(str(user_id)) as session:
        file = await files.find_file(session, user_id, key_of(file_id))
    return Pieces(files.pieces_of(database, file), MEDIA_TYPE, length=file.num_bytes)


@delete(
    "/v1/files/{file_id:str}",
    status_code=200,
    summary="Delete a file",
    security=SECURITY,
    responses=refusals(400, 401, 404),
)
async def delete_file(
    request: SignedInRequest, database: Provided[Database], file_id: FromPath[str]
) -> DeletedFile:
    """Delete one of my files, unless a batch that has not ended reads it."""
    user_id, key = request.user.user_id, key_of(file_id)
    async with database.write(str(user_id)) as session:
        await files.find_file(session, user_id, key)
        reader = await batches.reader_of(session, key)
        if reader is not None:
            name = batches.name_of(reader)
            raise RequestError(f"{name} reads this file and has not ended: cancel it first")
        await files.delete_file(session, user_id, key)
    return DeletedFile(id=file_id)


def key_of(file_id: str) -> Any:
    """Read the id of a file.

    Raises:
        NotKept: it is none.
    """
    key = id_of("file", file_id, "-")
    if key is None:
        raise NotKept("file", file_id)
    return key
