"""LocalLab's models and machine: load, unload, list; URL → catalog → answer."""

import asyncio
from collections.abc import Sequence
from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import Guard

from app.catalog.catalog import Catalog
from app.dialects.body import read_object, takes, to_record
from app.dialects.locallab import wire
from app.dialects.locallab.management_schemas import (
    AvailableModel,
    AvailableModels,
    CurrentModel,
    LoadAnswer,
    LoadBody,
    SystemInfo,
    UnloadAnswer,
    UnloadBody,
)
from app.dialects.locallab.schemas import ErrorAnswer
from app.errors import Error
from app.generation.service import GenerationService
from app.system import SystemMeter, read_gpus, read_memory

AnyRequest = Request[Any, Any, Any]
Models = NamedDependency[Catalog]

_ERRORS = {
    status: ResponseSpec(ErrorAnswer, description=description, generate_examples=False)
    for status, description in {
        400: "A field is wrong",
        401: "The server asks for a token and there is none that holds",
        403: "The user is no administrator",
        404: "No such model on this server, or none is loaded",
        413: "The body is too large",
        500: "The model's files are broken; what was loaded stays loaded",
        503: "The server is shutting down; see Retry-After",
    }.items()
}


def _errors(*statuses: int) -> dict[int, ResponseSpec]:
    return {status: _ERRORS[status] for status in statuses}


@post(
    "/models/load",
    status_code=200,
    summary="Load a model",
    operation_class=takes(LoadBody),
    responses=_errors(400, 401, 403, 404, 413, 500, 503),
)
async def load(request: AnyRequest, models: Models) -> LoadAnswer:
    """Bring a model into memory and answer when it is there; one that is there is no error.

    Where memory holds as many as it may, the least recently used one leaves, after it has
    finished what it runs.
    """
    asked = to_record(await read_object(request), LoadBody)
    model = await models.load(asked.model_id)
    return LoadAnswer(model.model_id, f"Model {model.model_id} is loaded")


@post(
    "/models/unload",
    status_code=200,
    summary="Unload a model",
    operation_class=takes(UnloadBody, required=False),
    responses=_errors(400, 401, 403, 404, 413, 500),
)
async def unload(request: AnyRequest, models: Models) -> UnloadAnswer:
    """Let a model finish what it runs and give its memory back."""
    # the original clients send no body, though some name its type
    body = await read_object(request) if await request.body() else {}
    model_id = to_record(body, UnloadBody).model_id
    unloaded = await models.unload(model_id)
    if unloaded is not None:
        return UnloadAnswer("Model unloaded successfully", f"Model {unloaded} unloaded", unloaded)
    if model_id is None:
        return UnloadAnswer("No model was loaded", "There is no model in memory")
    await asyncio.to_thread(models.read, model_id)  # one that isn't there either is a 404
    return UnloadAnswer("No model was loaded", f"Model {model_id} is not in memory")


@get(
    "/models/current",
    summary="The loaded model",
    responses=_errors(401, 404),
)
async def current(models: Models) -> Response[CurrentModel]:
    """Describe the model that requests get which name none: the one used last."""
    model = models.current
    if model is None:
        loading = "".join(f"; {name} is loading" for name in models.loading)
        return wire.envelope(404, f"no model is loaded{loading}", {})
    return Response(CurrentModel.of(model, models.loaded))


@get("/models/available", summary="All models", responses=_errors(401))
async def available(models: Models) -> AvailableModels:
    """List the models on this server's disk."""
    manifests = await asyncio.to_thread(models.available)
    progress = models.loading | {model.model_id: 1.0 for model in models.loaded}
    return AvailableModels(
        [AvailableModel.of(manifest, progress.get(manifest.model_id)) for manifest in manifests],
        models.current.model_id if models.current else None,
    )


@get("/system/info", summary="The machine", responses=_errors(401))
async def system_info(
    models: Models, service: NamedDependency[GenerationService], meter: NamedDependency[SystemMeter]
) -> SystemInfo:
    """Tell how busy the machine is and what the server has done."""
    cpu, memory = meter.cpu(), read_memory()
    gpus = await asyncio.to_thread(read_gpus)
    return SystemInfo(
        cpu_usage=cpu.usage,
        memory_usage=memory.percent,
        gpu_info=gpus,
        active_model=models.current.model_id if models.current else None,
        uptime=round(meter.uptime_s, 3),
        request_count=service.num_started,
        cpu=cpu,
        memory=memory,
        gpu=gpus,
    )


def router(
    catalog: Catalog, managing: Sequence[Guard] = (), reading: Sequence[Guard] = ()
) -> Router:
    """Make the endpoints.

    Args:
        catalog: whose models are listed, loaded and unloaded.
        managing: stand before what loads and unloads.
        reading: stand before what only looks.
    """
    meter = SystemMeter()
    return Router(
        path="/",
        route_handlers=[
            Router(path="/", route_handlers=[load, unload], guards=managing),
            Router(path="/", route_handlers=[current, available, system_info], guards=reading),
        ],
        dependencies={
            "models": Provide(lambda: catalog, sync_to_thread=False),
            "meter": Provide(lambda: meter, sync_to_thread=False),
        },
        exception_handlers={Error: lambda _, error: wire.refuse(error)},
        tags=["LocalLab"],
    )
