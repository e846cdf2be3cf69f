"""`POST /api/embed` and the older `/api/embeddings`: vectors of texts."""

from typing import Annotated, Any, Final, TypeVar

import msgspec
from litestar import Response, post
from msgspec import Meta

from app.contract.embedding import Embedder, EmbeddingRequest
from app.contract.models import ModelRegistry
from app.dialects.kit.body import Body, read_object, takes, to_record
from app.dialects.kit.callers import caller_of
from app.dialects.kit.connected import while_connected
from app.dialects.kit.host import AnyRequest, Provided
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.vectors import MAX_INPUTS, written
from app.dialects.ollama.answers import Clock
from app.dialects.ollama.names import resolve
from app.dialects.ollama.schemas import KeepAlive, ModelName
from app.dialects.ollama.wire import refusals
from app.errors import UnknownModel
from app.settings import Settings

T = TypeVar("T", bound=msgspec.Struct)

_UNUSED: Final = {"options": "it is the operator's to say how models are loaded"}


class EmbedBody(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /api/embed`."""

    model: ModelName
    input: Annotated[
        str | Annotated[list[str], Meta(max_length=MAX_INPUTS)],
        Meta(description="A text, or several.", examples=["The sky is blue."]),
    ]
    truncate: Annotated[
        bool, Meta(description="Whether a text that is too long is cut; else it is refused.")
    ] = True
    dimensions: Annotated[
        Annotated[int, Meta(ge=1, le=2**20)] | None,
        Meta(description="Numbers of a vector, where the model was trained for fewer."),
    ] = None
    keep_alive: KeepAlive = None


class EmbedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Vectors, in the order of their texts."""

    model: str
    embeddings: list[list[float]]
    total_duration: Annotated[int, Meta(description="Nanoseconds.")]
    load_duration: int
    prompt_eval_count: Annotated[int, Meta(description="Tokens of all texts.")]


class EmbeddingsBody(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /api/embeddings`."""

    model: ModelName
    prompt: Annotated[str, Meta(examples=["The sky is blue."])]
    keep_alive: KeepAlive = None


class EmbeddingsAnswer(msgspec.Struct, frozen=True):
    """The vector of one text."""

    embedding: list[float]


@post(
    "/api/embed",
    status_code=200,
    summary="Embeddings",
    operation_class=takes(EmbedBody),
    responses=refusals(400, 401, 404, 413, 429, 500, 503),
)
async def embed(
    request: AnyRequest,
    embedder: Provided[Embedder | None],
    models: Provided[ModelRegistry],
    settings: Provided[Settings],
) -> Response[EmbedAnswer]:
    """Make a vector of each text."""
    clock = Clock()
    passed = PassedOver(strict=settings.strict_parameters)
    asked = _read(await read_object(request, typed=False), EmbedBody, passed)
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    wanted = EmbeddingRequest(inputs=texts, dimensions=asked.dimensions, truncate=asked.truncate)
    clock.start()  # the time of loading a model is part of the whole and not told apart
    vectors, tokens = await _vectors(request, embedder, models, asked.model, wanted)
    timings = clock.timings()
    answer = EmbedAnswer(
        model=asked.model,
        embeddings=vectors,
        total_duration=timings["total_duration"],
        load_duration=timings["load_duration"],
        prompt_eval_count=tokens,
    )
    return Response(answer, headers=passed.headers)


@post(
    "/api/embeddings",
    status_code=200,
    summary="Embedding of one text",
    operation_class=takes(EmbeddingsBody),
    responses=refusals(400, 401, 404, 413, 429, 500, 503),
)
async def embeddings(
    request: AnyRequest,
    embedder: Provided[Embedder | None],
    models: Provided[ModelRegistry],
    settings: Provided[Settings],
) -> Response[EmbeddingsAnswer]:
    """Make the vector of a text; the older form, which cuts what is too long."""
    passed = PassedOver(strict=settings.strict_parameters)
    asked = _read(await read_object(request, typed=False), EmbeddingsBody, passed)
    wanted = EmbeddingRequest(inputs=[asked.prompt], truncate=True, field="prompt")
    [vector], _ = await _vectors(request, embedder, models, asked.model, wanted)
    return Response(EmbeddingsAnswer(vector), headers=passed.headers)


async def _vectors(
    request: AnyRequest,
    embedder: Embedder | None,
    models: ModelRegistry,
    name: str,
    wanted: EmbeddingRequest,
) -> tuple[list[list[float]], int]:
    facts = await resolve(models, name)
    if embedder is None:
        raise UnknownModel(name)
    if not wanted.inputs:
        return [], 0
    caller = await caller_of(request)
    work = embedder.embed(wanted, facts.model_id, caller)
    made = await while_connected(request.receive, work)
    return await written(made.vectors), made.prompt_tokens


def _read(body: Body, kind: type[T], passed: PassedOver) -> T:
    kept: dict[str, Any] = {}
    for name, value in body.items():
        if name in kind.__struct_fields__:
            kept[name] = value
        elif value is not None:
            passed.note(name, value, _UNUSED.get(name, "there is no such field"))
    asked = to_record(kept, kind)
    if kept.get("keep_alive") is not None:
        passed.note("keep_alive", kept["keep_alive"], "encoders leave when others need their place")
    return asked
