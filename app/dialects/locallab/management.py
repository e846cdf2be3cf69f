"""LocalLab's models and machine: load, unload, list, look."""

import asyncio

from litestar import Response, Router, get, post
from litestar.di import Provide

from app.auth.guards import admin_if_required, from_no_other_site, signed_in_if_required
from app.contract.generation import Generator
from app.contract.models import ModelRegistry
from app.dialects.kit.body import read_object, takes, to_record
from app.dialects.kit.host import AnyRequest, Provided
from app.dialects.kit.refusals import detail
from app.dialects.kit.router import OwnRouter
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
from app.dialects.locallab.wire import refusals
from app.system import SystemMeter, read_gpus, read_memory


@post(
    "/models/load",
    status_code=200,
    summary="Load a model",
    operation_class=takes(LoadBody),
    responses=refusals(400, 401, 403, 404, 413, 500, 503),
)
async def load(request: AnyRequest, models: Provided[ModelRegistry]) -> LoadAnswer:
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
    responses=refusals(400, 401, 403, 404, 413, 500),
)
async def unload(request: AnyRequest, models: Provided[ModelRegistry]) -> UnloadAnswer:
    """Let a model finish what it runs and give its memory back."""
    # the original clients send no body, though some name its type
    body = await read_object(request) if await request.body() else {}
    model_id = to_record(body, UnloadBody).model_id
    unloaded = await models.unload(model_id)
    if unloaded is not None:
        return UnloadAnswer("Model unloaded successfully", f"Model {unloaded} unloaded", unloaded)
    if model_id is None:
        return UnloadAnswer("No model was loaded", "There is no model in memory")
    await models.describe(model_id)  # one that isn't on disk either is a 404
    return UnloadAnswer("No model was loaded", f"Model {model_id} is not in memory")


@get(
    "/models/current",
    summary="The loaded model",
    responses=refusals(401, 404),
)
async def show_current(models: Provided[ModelRegistry]) -> Response[CurrentModel]:
    """Describe the model that answers requests that name none: the one used last."""
    model = models.current
    if model is None:
        loading = "".join(f"; {name} is loading" for name in models.loading)
        return detail(404, f"no model is loaded{loading}", {})
    return Response(CurrentModel.of(model, models.loaded))


@get("/models/available", summary="All models", responses=refusals(401))
async def available(models: Provided[ModelRegistry]) -> AvailableModels:
    """List the models on this server's disk."""
    on_disk = await models.available()
    progress = {**models.loading, **{model.model_id: 1.0 for model in models.loaded}}
    current = models.current
    return AvailableModels(
        [AvailableModel.of(facts, progress.get(facts.base_id)) for facts in on_disk],
        None if current is None else current.model_id,
    )


@get("/system/info", summary="The machine", responses=refusals(401))
async def system_info(
    models: Provided[ModelRegistry], generator: Provided[Generator], meter: Provided[SystemMeter]
) -> SystemInfo:
    """Tell how busy the machine is and what the server has done."""
    cpu, memory, current = meter.cpu(), read_memory(), models.current
    gpus = await asyncio.to_thread(read_gpus)
    return SystemInfo(
        cpu_usage=cpu.usage,
        memory_usage=memory.percent,
        gpu_info=gpus,
        active_model=None if current is None else current.model_id,
        uptime=round(meter.uptime_s, 3),
        request_count=generator.num_started,
        cpu=cpu,
        memory=memory,
        gpu=gpus,
    )


def routers() -> list[Router]:
    """Make the endpoints: what manages models, and what only looks."""
    meter = SystemMeter()
    return [
        OwnRouter(
            path="/",
            route_handlers=[load, unload],
            guards=[from_no_other_site, admin_if_required],
        ),
        OwnRouter(
            path="/",
            route_handlers=[show_current, available, system_info],
            guards=[signed_in_if_required],
            dependencies={"meter": Provide(lambda: meter, sync_to_thread=False)},
        ),
    ]
