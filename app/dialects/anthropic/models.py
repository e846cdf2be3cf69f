"""`GET /v1/models` and `GET /v1/models/{id}` for clients that send `anthropic-version`."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from litestar import get
from litestar.params import Parameter
from msgspec import Meta

from app.contract.models import ModelFacts, ModelRegistry
from app.dialects.anthropic.wire import refusals
from app.dialects.kit.dialect import Visit
from app.dialects.kit.host import AnyRequest, Provided
from app.dialects.kit.query import asks, read_query
from app.errors import InvalidParameter

OWN: Final = "/anthropic/v1/models"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Which models are listed."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 20
    after_id: Annotated[str | None, Meta(description="Those after this one.")] = None
    before_id: Annotated[str | None, Meta(description="Those before this one.")] = None


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model on this server."""

    id: str
    type: Literal["model"] = "model"
    display_name: str
    created_at: Annotated[str, Meta(description="When it was exported, RFC 3339.")]
    lifecycle: Literal["active"] = "active"
    deprecated_at: None = None
    retires_at: None = None
    line: None = None
    capabilities: None = None
    max_input_tokens: Annotated[int, Meta(description="Tokens of prompt and answer together.")]
    max_tokens: Annotated[int, Meta(description="The same number.")]

    @classmethod
    def of(cls, facts: ModelFacts, models: ModelRegistry) -> "ModelInfo":
        """Describe a model on disk; one in memory may have less room than it was trained for."""
        loaded = {model.model_id: model.capacity for model in models.loaded}
        room = loaded.get(facts.base_id, facts.context_length)
        return cls(
            id=facts.model_id,
            display_name=facts.model_id.rpartition("/")[2],
            created_at=facts.created.isoformat().replace("+00:00", "Z"),
            max_input_tokens=room,
            max_tokens=room,
        )


class ModelPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the models on this server's disk, by name."""

    data: list[ModelInfo]
    has_more: bool
    first_id: str | None
    last_id: str | None


@get(
    OWN,
    summary="All models, for Anthropic's clients",
    operation_class=asks(Page),
    responses=refusals(400, 401),
)
async def list_models(request: AnyRequest, models: Provided[ModelRegistry]) -> ModelPage:
    """List the models on this server's disk; `GET /v1/models` with `anthropic-version` is this."""
    page = read_query(request, Page)
    facts = list(await models.available())
    names = [model.model_id for model in facts]
    for field in ("after_id", "before_id"):
        if getattr(page, field) not in (None, *names):
            raise InvalidParameter(field, getattr(page, field), "the id of a listed model")
    if page.after_id is not None:
        facts = facts[names.index(page.after_id) + 1 :]
    if page.before_id is not None:
        # the page that ends just before it
        before = [model.model_id for model in facts]
        facts = facts[: before.index(page.before_id)] if page.before_id in before else []
        shown = facts[-page.limit :]
    else:
        shown = facts[: page.limit]
    data = [ModelInfo.of(model, models) for model in shown]
    return ModelPage(
        data=data,
        has_more=len(shown) < len(facts),
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


@get(
    f"{OWN}/{{model_id:path}}",
    summary="One model, for Anthropic's clients",
    responses=refusals(400, 401, 404, 500),
)
async def show_model(
    models: Provided[ModelRegistry],
    model_id: Annotated[
        str,
        Parameter(
            description="`publisher/name`, with the slash as it is or as `%2F`.",
            schema_extra={"minLength": 3},
        ),
    ],
) -> ModelInfo:
    """Describe a model on this server's disk."""
    return ModelInfo.of(await models.describe(model_id.removeprefix("/")), models)


def visits() -> list[Visit]:
    """Say which requests to OpenAI's paths are from Anthropic's clients."""

    def known(headers: Mapping[bytes, bytes]) -> bool:
        return b"anthropic-version" in headers

    return [Visit(method="GET", path="/v1/models", own=OWN, below=True, known=known)]
