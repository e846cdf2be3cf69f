"""`POST /api/pull`, `/api/copy`, `DELETE /api/delete`: change which models there are on disk.

Only for administrators; on an open server only from the machine itself.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import msgspec
from litestar import Response, delete, post
from litestar.openapi import ResponseSpec
from msgspec import Meta

from app.contract.models import ModelLibrary, ModelRegistry, PullStep
from app.dialects.kit.body import read_object, takes, to_record
from app.dialects.kit.framing import NDJSON, STREAM_HEADERS, json_line
from app.dialects.kit.host import AnyRequest, Provided
from app.dialects.kit.pieces import Pieces
from app.dialects.ollama.names import LATEST, resolve
from app.dialects.ollama.wire import ErrorAnswer, refusals
from app.errors import Error, InvalidParameter

_HUBS = ("hf.co/", "huggingface.co/")
_NOTHING = ResponseSpec(None, description="Done; the answer has no body.")


class PullBody(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /api/pull`."""

    model: Annotated[
        str | None, Meta(description="`publisher/name` of a repository on the Hugging Face Hub.")
    ] = None
    name: Annotated[str | None, Meta(description="An older name of model.")] = None
    stream: bool = True
    insecure: Annotated[bool, Meta(description="Taken and not used.")] = False


class DeleteBody(msgspec.Struct, frozen=True, kw_only=True):
    """`DELETE /api/delete`."""

    model: str | None = None
    name: Annotated[str | None, Meta(description="An older name of model.")] = None


class CopyBody(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /api/copy`."""

    source: str
    destination: Annotated[str, Meta(description="`publisher/name`, not yet on this server.")]


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a model has come."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


@post(
    "/api/pull",
    status_code=200,
    summary="Fetch a model",
    operation_class=takes(PullBody, streams=(NDJSON,)),
    responses=refusals(400, 401, 403, 500, 503),
)
async def pull(request: AnyRequest, library: Provided[ModelLibrary]) -> Response[Progress]:
    """Fetch a model from the Hugging Face Hub and export it, as `python -m export` does.

    A line tells each step; `completed` and `total` count steps, not bytes.
    """
    asked = to_record(await read_object(request, typed=False), PullBody)
    name = _named(asked.model, asked.name).removesuffix(LATEST)
    for hub in _HUBS:
        name = name.removeprefix(hub)
    steps = library.pull(name)
    first = await anext(steps)  # what can be refused at once is a status
    if asked.stream:
        beginning = json_line(Progress("pulling manifest")) + _line(name, first)
        return Pieces(_lines(name, steps), NDJSON, first=beginning, headers=STREAM_HEADERS)
    async with aclosing(steps):
        async for _ in steps:
            pass
    return Response(Progress("success"))


@delete(
    "/api/delete",
    status_code=200,
    summary="Delete a model",
    operation_class=takes(DeleteBody),
    responses={200: _NOTHING, **refusals(400, 401, 403, 404, 500)},
)
async def remove(
    request: AnyRequest, library: Provided[ModelLibrary], models: Provided[ModelRegistry]
) -> Response[None]:
    """Let a model finish what it runs, and delete its folder."""
    asked = to_record(await read_object(request, typed=False), DeleteBody)
    facts = await resolve(models, _named(asked.model, asked.name))
    await library.delete(facts.model_id)
    return Response(None, media_type="text/plain")


@post(
    "/api/copy",
    status_code=200,
    summary="Copy a model",
    operation_class=takes(CopyBody),
    responses={200: _NOTHING, **refusals(400, 401, 403, 404, 500)},
)
async def copy(
    request: AnyRequest, library: Provided[ModelLibrary], models: Provided[ModelRegistry]
) -> Response[None]:
    """Give a model a further name; its files are shared where the file system can."""
    asked = to_record(await read_object(request, typed=False), CopyBody)
    facts = await resolve(models, asked.source)
    await library.copy(facts.model_id, asked.destination.removesuffix(LATEST))
    return Response(None, media_type="text/plain")


def _named(model: str | None, name: str | None) -> str:
    found = model or name
    if not found:
        raise InvalidParameter("model", found, "a model's name")
    return found


async def _lines(name: str, steps: AsyncGenerator[PullStep, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(steps):
        try:
            async for step in steps:
                yield _line(name, step)
        except Error as error:
            yield json_line(ErrorAnswer(error.message))
        else:
            yield json_line(Progress("success"))


def _line(name: str, step: PullStep) -> bytes:
    told = f"pulling {name}: {step.name}" if step.name else f"pulling {name}"
    return json_line(Progress(told, f"export:{name}", step.total, step.done))
