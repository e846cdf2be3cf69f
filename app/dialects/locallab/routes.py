"""LocalLab's text: `POST /generate` with a prompt, `/chat`, `/generate/batch`, `GET /health`."""

from functools import partial
from typing import Any, Final

from litestar import Response, get, post
from litestar.openapi.datastructures import ResponseSpec

from app.auth.guards import signed_in_if_required, within_rate_limit
from app.contract.generation import Generator
from app.contract.models import ModelRegistry
from app.dialects.kit.body import Body, read_object, takes, to_record
from app.dialects.kit.callers import caller_of
from app.dialects.kit.dialect import Claim, Dialect
from app.dialects.kit.framing import EVENT_STREAM, TextEvents, TextFraming, asks_for
from app.dialects.kit.host import AnyRequest, Host, Provided
from app.dialects.kit.refusals import detail
from app.dialects.kit.router import OwnRouter
from app.dialects.kit.streaming import Reply
from app.dialects.locallab import management, wire
from app.dialects.locallab.schemas import (
    BatchAnswer,
    BatchBody,
    ChatAnswer,
    ChatBody,
    GenerateAnswer,
    GenerateBody,
    HealthAnswer,
    UsageAnswer,
)

REFUSALS: Final = wire.refusals(400, 401, 404, 413, 429, 500, 503)


async def generate(host: Host, request: AnyRequest, body: Body) -> Response[GenerateAnswer]:
    """Go on from one prompt."""
    asked = to_record(body, GenerateBody)
    wanted = asked.prompt_request(asked.prompt, raw=asked.raw)
    caller = await caller_of(request)
    generation = await host.generator.start(wanted, asked.model_id, caller)
    reply = Reply(request, generation)
    if asked.stream:
        return await _stream(request, reply, wire.PlainText())
    [whole] = await reply.whole()
    return Response(GenerateAnswer.of(whole, reply.model_id))


@post(
    "/chat",
    status_code=200,
    responses=REFUSALS,
    operation_class=takes(ChatBody, streams=(EVENT_STREAM,)),
)
async def chat(request: AnyRequest, generator: Provided[Generator]) -> Response[ChatAnswer]:
    """Write the assistant's next turn of a conversation.

    With `stream: true` the answer is `text/event-stream`: `data:` lines, then `data: [DONE]`.
    """
    asked = to_record(await read_object(request), ChatBody)
    wanted = asked.chat_request()
    generation = await generator.start(wanted, asked.model_id, await caller_of(request))
    reply = Reply(request, generation)
    if asked.stream:
        return await _stream(request, reply, wire.PlainChat())
    [whole] = await reply.whole()
    return Response(ChatAnswer.of(whole, reply.model_id))


@post("/generate/batch", status_code=200, responses=REFUSALS, operation_class=takes(BatchBody))
async def generate_batch(
    request: AnyRequest, generator: Provided[Generator]
) -> Response[BatchAnswer]:
    """Go on from several prompts at once; they share the engine's steps."""
    asked = to_record(await read_object(request), BatchBody)
    wanted = asked.requests()
    caller = await caller_of(request, len(wanted))
    generations = await generator.start_batch(wanted, asked.model_id, caller)
    reply = Reply(request, *generations)
    wholes = await reply.whole()
    return Response(
        BatchAnswer(
            responses=[whole.text for whole in wholes],
            model_id=reply.model_id,
            usage=UsageAnswer.of(*(whole.finished.usage for whole in wholes)),
        )
    )


@get(
    "/health",
    responses={503: ResponseSpec(HealthAnswer, description="The engine can't go on")},
)
async def health(models: Provided[ModelRegistry]) -> Response[HealthAnswer]:
    """Tell whether the server can answer, and how busy it is; waits for nothing."""
    answer = HealthAnswer.of(models.current)
    return Response(answer, status_code=200 if answer.status == "healthy" else 503)


def dialect(host: Host) -> Dialect:
    """Make LocalLab's endpoints; what no other dialect owns is answered in its words."""
    generating = OwnRouter(
        path="/",
        route_handlers=[chat, generate_batch],
        guards=[signed_in_if_required, within_rate_limit],
    )
    return Dialect(
        paths=("/",),
        router=OwnRouter(
            path="/",
            route_handlers=[generating, health, *management.routers()],
            tags=["LocalLab"],
        ),
        refuse=wire.refuse,
        envelope=detail,
        claims={
            "prompt": Claim(
                handler=partial(generate, host),
                body=GenerateBody,
                responses={200: ResponseSpec(GenerateAnswer), **REFUSALS},
                streams=(EVENT_STREAM,),
            )
        },
    )


async def _stream(request: AnyRequest, reply: Reply, original: TextFraming) -> Response[Any]:
    """Stream server-sent events to a client that asks for them, else the original framing."""
    return await reply.stream(TextEvents() if asks_for(request, EVENT_STREAM) else original)
