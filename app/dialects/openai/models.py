"""`GET /v1/models` and `GET /v1/models/{id}`."""

from typing import Annotated, Literal

import msgspec
from litestar import get
from litestar.params import Parameter
from msgspec import Meta

from app.contract.models import ModelFacts, ModelRegistry
from app.dialects.kit.host import Provided
from app.dialects.openai.wire import refusals


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model on this server."""

    id: str
    object: Literal["model"] = "model"
    created: Annotated[int, Meta(description="Unix time of its export.")]
    owned_by: str
    root: Annotated[str, Meta(description="The model that an adapter is for, else as id.")]
    parent: Annotated[str | None, Meta(description="The same; null of what is no adapter.")]
    max_model_len: Annotated[int, Meta(description="Tokens of prompt and answer together.")]

    @classmethod
    def of(cls, facts: ModelFacts, models: ModelRegistry) -> "Model":
        """Describe a model on disk; one in memory may have less room than it was trained for."""
        loaded = {model.model_id: model.capacity for model in models.loaded}
        return cls(
            id=facts.model_id,
            created=int(facts.created.timestamp()),
            owned_by=facts.model_id.partition("/")[0],
            root=facts.base_id,
            parent=facts.adapter_of,
            max_model_len=loaded.get(facts.base_id, facts.context_length),
        )


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """All models on this server's disk."""

    object: Literal["list"] = "list"
    data: list[Model]


Models = Provided[ModelRegistry]


@get("/v1/models", summary="All models", responses=refusals(401))
async def list_models(models: Models) -> ModelList:
    """List the models on this server's disk."""
    return ModelList(data=[Model.of(facts, models) for facts in await models.available()])


@get("/v1/models/{model_id:path}", summary="One model", responses=refusals(400, 401, 404, 500))
async def show_model(
    models: Models,
    model_id: Annotated[
        str,
        Parameter(
            description="`publisher/name` or `publisher/name:adapter`; a slash may be `%2F`.",
            schema_extra={"minLength": 3},  # in the document only: a shorter name is a 404 too
        ),
    ],
) -> Model:
    """Describe a model on this server's disk."""
    return Model.of(await models.describe(model_id.removeprefix("/")), models)
