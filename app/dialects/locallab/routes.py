"""LocalLab's endpoints: URL → service → answer.

`POST /generate` is shared with another dialect, so here it is a plain function that
app/dialects/shared_paths.py calls.
"""

from collections.abc import Sequence
from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import Guard

from app.auth.guards import tenant_of
from app.dialects import sse
from app.dialects.body import Body, read_object, takes, to_record
from app.dialects.locallab import wire
from app.dialects.locallab.schemas import (
    BatchAnswer,
    BatchBody,
    ChatAnswer,
    ChatBody,
    ErrorAnswer,
    GenerateAnswer,
    GenerateBody,
    HealthAnswer,
    UsageAnswer,
)
from app.dialects.streaming import Framing, stream, while_connected
from app.errors import Error
from app.generation.generation import Generation, whole_batch
from app.generation.service import GenerationService

AnyRequest = Request[Any, Any, Any]
Service = NamedDependency[GenerationService]

ERRORS = {
    status: ResponseSpec(ErrorAnswer, description=description, generate_examples=False)
    for status, description in {
        400: "A field is wrong, or no model is loaded",
        401: "The server asks for a token and there is none that holds",
        404: "No such model on this server",
        413: "The prompt is longer than the model's context, or the body too large",
        429: "The queue is full or the rate limit reached; see Retry-After",
        500: "The model failed",
        503: "The server is shutting down; see Retry-After",
    }.items()
}


async def generate(
    request: AnyRequest, body: Body, service: GenerationService
) -> Response[GenerateAnswer]:
    """Go on from one prompt."""
    asked = to_record(body, GenerateBody)
    generation = await service.start(
        asked.prompt_request(asked.prompt, raw=asked.raw), asked.model_id, tenant_of(request)
    )
    if asked.stream:
        return await _stream(request, generation, wire.PlainText())
    text, finished = await while_connected(request.receive, generation.whole())
    usage = UsageAnswer.of(finished.usage)
    return Response(GenerateAnswer(text, generation.model_id, finished.reason, usage))


@post(
    "/chat",
    status_code=200,
    responses=ERRORS,
    operation_class=takes(ChatBody, streams=(sse.MEDIA_TYPE,)),
)
async def chat(request: AnyRequest, service: Service) -> Response[ChatAnswer]:
    """Write the assistant's next turn of a conversation.

    With `stream: true` the answer is `text/event-stream`: `data:` lines, then `data: [DONE]`.
    """
    asked = to_record(await read_object(request), ChatBody)
    generation = await service.start(asked.chat_request(), asked.model_id, tenant_of(request))
    if asked.stream:
        return await _stream(request, generation, wire.PlainChat())
    text, finished = await while_connected(request.receive, generation.whole())
    return Response(ChatAnswer.of(text, finished, generation.model_id))


@post("/generate/batch", status_code=200, responses=ERRORS, operation_class=takes(BatchBody))
async def generate_batch(request: AnyRequest, service: Service) -> Response[BatchAnswer]:
    """Go on from several prompts at once; they share the engine's steps."""
    asked = to_record(await read_object(request), BatchBody)
    generations = await service.start_batch(asked.requests(), asked.model_id, tenant_of(request))
    results = await while_connected(request.receive, whole_batch(generations))
    return Response(
        BatchAnswer(
            responses=[text for text, _ in results],
            model_id=generations[0].model_id,
            usage=UsageAnswer.of(*(finished.usage for _, finished in results)),
        )
    )


@get(
    "/health",
    responses={503: ResponseSpec(HealthAnswer, description="The engine can't go on")},
)
async def health(service: Service) -> Response[HealthAnswer]:
    """Tell whether the server can answer, and how busy it is; waits for nothing."""
    status = service.status()
    answer = HealthAnswer(
        status="healthy" if status.healthy else "unhealthy",
        model=status.model_id,
        slots=status.slots,
        slots_used=status.running,
        waiting=status.waiting,
    )
    return Response(answer, status_code=200 if status.healthy else 503)


def router(generating: Sequence[Guard] = ()) -> Router:
    """Make LocalLab's endpoints, except the shared one.

    Args:
        generating: stand before what generates.
    """
    return Router(
        path="/",
        route_handlers=[
            Router(path="/", route_handlers=[chat, generate_batch], guards=generating),
            health,
        ],
        exception_handlers={Error: lambda _, error: wire.refuse(error)},
        tags=["LocalLab"],
    )


async def _stream(request: AnyRequest, generation: Generation, original: Framing) -> Response[Any]:
    framing = sse.TextEvents() if sse.asks_for(request, sse.MEDIA_TYPE) else original
    return await stream(request, generation, framing, sse.MEDIA_TYPE, sse.HEADERS)
