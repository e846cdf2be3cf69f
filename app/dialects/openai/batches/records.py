"""What is told of batches, and the lines of the files that come out of them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from app.dialects.openai.batches.asking import Told
from app.dialects.openai.batches.listing import Listing
from app.dialects.openai.ids import new_id
from app.storage import batches, files
from app.storage.models import Batch

ENDPOINTS = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]


class BatchBody(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/batches`."""

    input_file_id: Annotated[str, Meta(min_length=1, max_length=64)]
    endpoint: Annotated[ENDPOINTS, Meta(description="The path that every line names.")]
    completion_window: Annotated[
        Literal["24h"], Meta(description="What is not answered by then is not asked any more.")
    ]
    metadata: Annotated[
        dict[
            Annotated[str, Meta(max_length=64)],
            Annotated[str, Meta(max_length=512)],
        ],
        Meta(max_length=16, description="Comes back with the batch."),
    ] = {}  # msgspec copies it


class BatchError(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with an input."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchErrors(msgspec.Struct, frozen=True, kw_only=True):
    """All that is wrong with an input, or the first hundred."""

    object: Literal["list"] = "list"
    data: list[msgspec.Raw]


class RequestCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch is."""

    total: int
    completed: int
    failed: int


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts
    metadata: dict[str, str]

    @classmethod
    def of(cls, batch: Batch) -> "BatchAnswer":
        """Make one of what is stored."""
        times: Any = msgspec.json.decode(batch.times)
        errors = batch.errors and msgspec.json.decode(batch.errors, type=list[msgspec.Raw])
        return cls(
            id=batches.name_of(batch.id),
            endpoint=batch.endpoint,
            errors=BatchErrors(data=errors) if errors else None,
            input_file_id=files.name_of(batch.input_file),
            status=batch.status,
            output_file_id=_file(batch.output_file),
            error_file_id=_file(batch.error_file),
            created_at=int(batch.created_at.timestamp()),
            expires_at=int(batch.expires_at.timestamp()),
            request_counts=RequestCounts(
                total=batch.total, completed=batch.completed, failed=batch.failed
            ),
            metadata=msgspec.json.decode(batch.labels, type=dict[str, str]),
            **times,
        )


class BatchList(Listing, frozen=True, kw_only=True):
    """Batches, the newest first."""

    data: list[BatchAnswer]


def batch_error(
    code: str, message: str, param: str | None = None, line: int | None = None
) -> msgspec.Raw:
    """Write what is wrong with an input."""
    error = BatchError(code=code, message=message, param=param, line=line)
    return msgspec.Raw(msgspec.json.encode(error))


def told_line(custom_id: str, told: Told) -> str:
    """Write the line of an answer, good or bad."""
    response = {
        "status_code": told.status,
        "request_id": told.headers.get("x-request-id", ""),
        "body": msgspec.Raw(told.body),
    }
    return _line(custom_id, response, None)


def error_line(custom_id: str | None, code: str, message: str) -> str:
    """Write the line of what was not asked."""
    return _line(custom_id, None, {"code": code, "message": message})


def _line(
    custom_id: str | None, response: Mapping[str, Any] | None, error: Mapping[str, str] | None
) -> str:
    line = {
        "id": new_id("batch_req"),
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    return msgspec.json.encode(line).decode()


def _file(file_id: UUID | None) -> str | None:
    return None if file_id is None else files.name_of(file_id)
