"""`GET /v1/models` and `GET /v1/models/{id}`."""

import asyncio
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import Parameter
from msgspec import Meta

from app.catalog.catalog import Catalog
from app.dialects.openai.wire import refusals
from app.manifest import Manifest


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model on this server."""

    id: str
    object: Literal["model"] = "model"
    created: Annotated[int, Meta(description="Unix time of its export.")]
    owned_by: str
    max_model_len: Annotated[int, Meta(description="Tokens of prompt and answer together.")]

    @classmethod
    def of(cls, manifest: Manifest, catalog: Catalog) -> "Model":
        """Describe a model on disk; one in memory may have less room than it was trained for."""
        loaded = {model.model_id: model.engine.capacity for model in catalog.loaded}
        return cls(
            id=manifest.model_id,
            created=int(datetime.fromisoformat(manifest.created).timestamp()),
            owned_by=manifest.model_id.partition("/")[0],
            max_model_len=loaded.get(manifest.model_id, manifest.graph.context_length),
        )


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


Models = NamedDependency[Catalog]


@get("/v1/models", summary="All models", responses=refusals(401))
async def list_models(models: Models) -> ModelList:
    """List the models on this server's disk."""
    manifests = await asyncio.to_thread(models.available)
    return ModelList(data=[Model.of(manifest, models) for manifest in manifests])


@get("/v1/models/{model_id:path}", summary="One model", responses=refusals(401, 404, 500))
async def show_model(
    models: Models,
    model_id: Annotated[
        str,
        Parameter(
            description="`publisher/name`, with the slash as it is or as `%2F`.",
            schema_extra={"minLength": 3},  # in the document only: a shorter name is a 404 too
        ),
    ],
) -> Model:
    """Describe a model on this server's disk."""
    manifest = await asyncio.to_thread(models.read, model_id.removeprefix("/"))
    return Model.of(manifest, models)
