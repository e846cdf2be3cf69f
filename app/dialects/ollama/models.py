"""`GET /api/tags`, `/api/ps`, `/api/version`, `POST /api/show`: which models there are."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from litestar import get, post
from msgspec import Meta

from app.contract.models import ModelFacts, ModelRegistry
from app.dialects.kit.body import read_object, takes, to_record
from app.dialects.kit.host import AnyRequest, Provided
from app.dialects.ollama.answers import rfc3339
from app.dialects.ollama.keep_alive import KeepAlive
from app.dialects.ollama.names import resolve, told_name
from app.dialects.ollama.wire import refusals
from app.errors import InvalidParameter
from app.settings import Settings

API_VERSION: Final = "0.13.0"
"""Of Ollama: the API that is spoken. Its clients compare it with the one that they need."""
_NEVER: Final = datetime(9999, 12, 31, tzinfo=UTC)


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is like."""

    parent_model: Annotated[str, Meta(description="What an adapter is for.")] = ""
    format: str = "onnx"
    family: str
    families: list[str]
    parameter_size: Annotated[str, Meta(description="Empty: it isn't known.")] = ""
    quantization_level: str

    @classmethod
    def of(cls, facts: ModelFacts) -> "Details":
        """Describe a model."""
        family = facts.architecture
        return cls(
            parent_model=facts.adapter_of or "",
            family=family,
            families=[family],
            quantization_level=facts.quantisation,
        )


class Tagged(msgspec.Struct, frozen=True, kw_only=True):
    """A model on this server's disk."""

    name: str
    model: str
    modified_at: str
    size: Annotated[int, Meta(description="Bytes on disk.")]
    digest: Annotated[str, Meta(description="Another one after another export.")]
    details: Details

    @classmethod
    def of(cls, facts: ModelFacts) -> "Tagged":
        """Describe a model."""
        name = told_name(facts)
        return cls(
            name=name,
            model=name,
            modified_at=rfc3339(facts.created),
            size=facts.size_bytes,
            digest=digest(facts),
            details=Details.of(facts),
        )


class Tags(msgspec.Struct, frozen=True):
    """All models on this server's disk."""

    models: list[Tagged]


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A model in memory."""

    name: str
    model: str
    size: Annotated[int, Meta(description="Bytes of its files and of its full KV cache.")]
    digest: str
    details: Details
    expires_at: Annotated[str, Meta(description="When it leaves if nobody uses it.")]
    size_vram: Annotated[int, Meta(description="Of the size, what lies on a GPU.")]
    context_length: int


class Processes(msgspec.Struct, frozen=True):
    """Models in memory, the one used last first."""

    models: list[Running]


class Version(msgspec.Struct, frozen=True):
    """Whose API is spoken."""

    version: Annotated[str, Meta(description="Ollama's, not this server's.")]


class ShowBody(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /api/show`."""

    model: Annotated[str | None, Meta(examples=["HuggingFaceTB/SmolLM2-135M-Instruct"])] = None
    name: Annotated[str | None, Meta(description="An older name of model.")] = None


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One model."""

    modelfile: str = ""
    parameters: str = ""
    template: Annotated[str, Meta(description="Empty: templates here are no Go.")] = ""
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


@get("/api/tags", summary="All models", responses=refusals(401))
async def tags(models: Provided[ModelRegistry]) -> Tags:
    """List the models on this server's disk."""
    return Tags([Tagged.of(facts) for facts in await models.available()])


@get("/api/ps", summary="Loaded models", responses=refusals(401))
async def processes(
    models: Provided[ModelRegistry],
    keep_alive: Provided[KeepAlive],
    settings: Provided[Settings],
) -> Processes:
    """List the models in memory."""
    running = []
    for model in models.loaded:
        facts = model.facts
        left_s = keep_alive.left_s(model.model_id)
        if left_s is None and settings.idle_unload_s:
            left_s = settings.idle_unload_s
        leaves = _NEVER if left_s is None else datetime.now(UTC) + timedelta(seconds=left_s)
        size = facts.size_bytes + model.cache_bytes
        running.append(
            Running(
                name=told_name(facts),
                model=told_name(facts),
                size=size,
                digest=digest(facts),
                details=Details.of(facts),
                expires_at=rfc3339(leaves),
                size_vram=size if model.provider == "cuda" else 0,
                context_length=model.capacity,
            )
        )
    return Processes(running)


@get("/api/version", summary="Version of the API")
async def version() -> Version:
    """Tell which of Ollama's versions has the API that is spoken here."""
    return Version(API_VERSION)


@post(
    "/api/show",
    status_code=200,
    summary="One model",
    operation_class=takes(ShowBody),
    responses=refusals(400, 401, 404),
)
async def show(request: AnyRequest, models: Provided[ModelRegistry]) -> Shown:
    """Describe a model on this server's disk."""
    asked = to_record(await read_object(request, typed=False), ShowBody)
    name = asked.model or asked.name
    if name is None:
        raise InvalidParameter("model", None, "a model's name")
    facts = await resolve(models, name)
    loaded = {model.model_id: model.capacity for model in models.loaded}
    family = facts.architecture
    return Shown(
        details=Details.of(facts),
        model_info={
            "general.architecture": family,
            "general.basename": facts.model_id,
            f"{family}.context_length": loaded.get(facts.base_id, facts.context_length),
        },
        capabilities=_capabilities(facts),
        modified_at=rfc3339(facts.created),
    )


def _capabilities(facts: ModelFacts) -> list[str]:
    if facts.kind != "text":
        return ["embedding"] if facts.kind == "embedding" else []
    return ["completion", "tools"] if facts.chat else ["completion"]


def digest(facts: ModelFacts) -> str:
    """Tell one export of a model from another."""
    made = f"{facts.model_id} {facts.created.isoformat()} {facts.size_bytes}"
    return hashlib.sha256(made.encode()).hexdigest()
