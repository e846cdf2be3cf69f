"""OpenAI's endpoints: URL → service → answer. Those of models and of tokens have own files."""

from collections.abc import Sequence
from typing import Any, Final

from litestar import Request, Response, Router, post
from litestar.di import NamedDependency, Provide
from litestar.types import Guard

from app.auth.guards import tenant_of
from app.catalog.catalog import Catalog
from app.dialects import sse
from app.dialects.body import read_object, takes
from app.dialects.openai import wire
from app.dialects.openai.chat_schemas import CHAT_UNSERVED, ChatBody
from app.dialects.openai.chat_wire import ChatAnswer, ChatChunks
from app.dialects.openai.choices import Choices
from app.dialects.openai.completions_schemas import COMPLETIONS_UNSERVED, CompletionBody
from app.dialects.openai.completions_wire import CompletionAnswer, CompletionChunks
from app.dialects.openai.models import list_models, show_model
from app.dialects.openai.responses_records import ResponseAnswer
from app.dialects.openai.responses_schemas import RESPONSES_UNSERVED, ResponseBody
from app.dialects.openai.responses_wire import Answering, ResponseEvents
from app.dialects.openai.schemas import read
from app.dialects.openai.tokens import detokenize, tokenize
from app.dialects.streaming import while_connected
from app.errors import Error
from app.generation.service import GenerationService

AnyRequest = Request[Any, Any, Any]
Service = NamedDependency[GenerationService]

STREAMS: Final = (sse.MEDIA_TYPE,)
REFUSALS: Final = wire.refusals(400, 401, 404, 413, 429, 500, 503)
NO_EMBEDDINGS: Final = "this server makes texts: it has no model that makes embeddings"


@post(
    "/v1/chat/completions",
    status_code=200,
    summary="Chat completion",
    operation_class=takes(ChatBody, streams=STREAMS),
    responses=REFUSALS,
)
async def chat(request: AnyRequest, service: Service) -> Response[ChatAnswer]:
    """Write the assistant's next turn of a conversation, or let it call tools."""
    asked = read(await read_object(request), ChatBody, CHAT_UNSERVED)
    requests = asked.requests()
    choices = Choices(await service.start_batch(requests, asked.model, tenant_of(request)))
    try:
        if asked.stream:
            framing = ChatChunks(choices.model_id, asked.n, include_usage=asked.include_usage)
            return await choices.stream(request, framing)
        wholes = await while_connected(request.receive, choices.whole())
        return Response(ChatAnswer.of(choices.model_id, wholes))
    except BaseException:
        await choices.aclose()
        raise


@post(
    "/v1/completions",
    status_code=200,
    summary="Completion",
    operation_class=takes(CompletionBody, streams=STREAMS),
    responses=REFUSALS,
)
async def completions(request: AnyRequest, service: Service) -> Response[CompletionAnswer]:
    """Go on from a text or from tokens, past the chat template."""
    asked = read(await read_object(request), CompletionBody, COMPLETIONS_UNSERVED)
    prompts = asked.prompts()
    requests = asked.requests(prompts)
    choices = Choices(await service.start_batch(requests, asked.model, tenant_of(request)))
    try:
        echoes: list[str | None] = [
            (p if isinstance(p, str) else await service.detokenize(p, asked.model))
            if asked.echo
            else None
            for p in prompts
        ]
        if asked.stream:
            framing = CompletionChunks(
                choices.model_id, asked.n, echoes, include_usage=asked.include_usage
            )
            return await choices.stream(request, framing)
        wholes = await while_connected(request.receive, choices.whole())
        return Response(CompletionAnswer.of(choices.model_id, wholes, asked.n, echoes))
    except BaseException:
        await choices.aclose()
        raise


@post(
    "/v1/responses",
    status_code=200,
    summary="Response",
    operation_class=takes(ResponseBody, streams=STREAMS),
    responses=REFUSALS,
)
async def responses(request: AnyRequest, service: Service) -> Response[ResponseAnswer]:
    """Answer an input, which is the whole conversation: nothing is stored."""
    asked = read(await read_object(request), ResponseBody, RESPONSES_UNSERVED)
    generation = await service.start(asked.request(), asked.model, tenant_of(request))
    choices = Choices([generation])
    try:
        answering = Answering(asked, choices.model_id)
        if asked.stream:
            return await choices.stream(request, ResponseEvents(answering))
        await while_connected(request.receive, _run(choices, answering))
        return Response(answering.response)
    except BaseException:
        await choices.aclose()
        raise


@post(
    "/v1/embeddings",
    status_code=404,
    summary="Embeddings",
    responses=wire.refusals(401, 404, 429),
)
async def embeddings() -> Response[Any]:
    """Refuse: there is no model that makes embeddings."""
    return wire.envelope(404, NO_EMBEDDINGS, {})


def router(
    catalog: Catalog, generating: Sequence[Guard] = (), reading: Sequence[Guard] = ()
) -> Router:
    """Make the endpoints.

    Args:
        catalog: whose models are listed.
        generating: stand before what generates or tokenizes.
        reading: stand before what only looks.
    """
    handlers = [chat, completions, responses, embeddings, tokenize, detokenize]
    return Router(
        path="/",
        route_handlers=[
            Router(path="/", route_handlers=handlers, guards=generating),
            Router(path="/", route_handlers=[list_models, show_model], guards=reading),
        ],
        dependencies={"models": Provide(lambda: catalog, sync_to_thread=False)},
        exception_handlers={Error: lambda _, error: wire.refuse(error)},
        middleware=[wire.timed],
        tags=["OpenAI"],
    )


async def _run(choices: Choices, answering: Answering) -> None:
    """Take every event of the only choice; nobody reads what is told of them."""
    async for _, event in choices.events():
        for _ in answering.take(event):
            pass
