"""OpenAI's endpoints for text. Those of models and of tokens have files of their own."""

from typing import Final

from litestar import Response, Router, post

from app.auth.guards import signed_in_if_required, within_chosen_rate_limit
from app.contract.generation import Caller, Generator
from app.dialects.kit.body import read_object, takes
from app.dialects.kit.callers import caller_of
from app.dialects.kit.dialect import Dialect, Visit
from app.dialects.kit.framing import EVENT_STREAM
from app.dialects.kit.host import AnyRequest, Host, Provided
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.streaming import Reply
from app.dialects.openai import wire
from app.dialects.openai.chat_schemas import CHAT_RULES, ChatBody
from app.dialects.openai.chat_wire import ChatAnswer, ChatChunks
from app.dialects.openai.completions_schemas import COMPLETIONS_RULES, CompletionBody, Given
from app.dialects.openai.completions_wire import CompletionAnswer, CompletionChunks
from app.dialects.openai.counting import input_tokens
from app.dialects.openai.embeddings import embeddings
from app.dialects.openai.models import list_models, show_model
from app.dialects.openai.probes import ping, show_load, show_version
from app.dialects.openai.rerank import rerank
from app.dialects.openai.responses_records import ResponseAnswer
from app.dialects.openai.responses_schemas import RESPONSES_RULES, ResponseBody, note_harmless
from app.dialects.openai.responses_wire import Answering, ResponseEvents
from app.dialects.openai.taken import read
from app.dialects.openai.tokens import detokenize, tokenize
from app.dialects.openai.tools import without_foreign_tools
from app.settings import Settings

STREAMS: Final = (EVENT_STREAM,)
REFUSALS: Final = wire.refusals(400, 401, 404, 413, 429, 500, 503)
WITHOUT_V1: Final = (
    ("POST", "/chat/completions"),
    ("POST", "/completions"),
    ("POST", "/responses"),
    ("GET", "/models"),
)
"""Paths that answer without the prefix too, for clients whose base URL has none."""


@post(
    "/v1/chat/completions",
    status_code=200,
    summary="Chat completion",
    operation_class=takes(ChatBody, streams=STREAMS),
    responses=REFUSALS,
)
async def chat(
    request: AnyRequest, generator: Provided[Generator], settings: Provided[Settings]
) -> Response[ChatAnswer]:
    """Write the assistant's next turn of a conversation, or let it call tools."""
    passed = PassedOver(strict=settings.strict_parameters)
    body = without_foreign_tools(await read_object(request), passed)
    asked = read(body, ChatBody, CHAT_RULES, passed)
    wanted = asked.requests()
    caller = await caller_of(request, len(wanted))
    started = await generator.start_batch(wanted, asked.model, caller)
    reply = Reply(request, *started)
    await _note_effort(reply, "reasoning_effort", asked.reasoning_effort, passed)
    if asked.stream:
        chunks = ChatChunks(
            reply.model_id,
            asked.n,
            include_usage=asked.include_usage,
            usage_so_far=reply.usage if asked.continuous_usage else None,
            reasoning=asked.include_reasoning,
        )
        return await reply.stream(chunks, headers=passed.headers)
    answer = ChatAnswer.of(
        reply.model_id,
        await reply.whole(),
        logprobs=asked.logprobs,
        reasoning=asked.include_reasoning,
    )
    return Response(answer, headers=passed.headers)


@post(
    "/v1/completions",
    status_code=200,
    summary="Completion",
    operation_class=takes(CompletionBody, streams=STREAMS),
    responses=REFUSALS,
)
async def completions(
    request: AnyRequest, generator: Provided[Generator], settings: Provided[Settings]
) -> Response[CompletionAnswer]:
    """Go on from a text or from tokens, past the chat template."""
    passed = PassedOver(strict=settings.strict_parameters)
    asked = read(await read_object(request), CompletionBody, COMPLETIONS_RULES, passed)
    prompts = asked.prompts()
    wanted = asked.requests(prompts)
    caller = await caller_of(request, len(wanted))
    started = await generator.start_batch(wanted, asked.model, caller)
    reply = Reply(request, *started)
    try:
        echoes = [await _echo(generator, asked, prompt, caller) for prompt in prompts]
    except BaseException:
        await reply.aclose()
        raise
    if asked.stream:
        return await reply.stream(
            CompletionChunks(
                reply.model_id,
                asked.n,
                echoes,
                include_usage=asked.include_usage,
                usage_so_far=reply.usage if asked.continuous_usage else None,
            ),
            headers=passed.headers,
        )
    wholes, logprobs = await reply.whole(), asked.logprobs is not None
    answer = CompletionAnswer.of(reply.model_id, wholes, asked.n, echoes, logprobs=logprobs)
    return Response(answer, headers=passed.headers)


@post(
    "/v1/responses",
    status_code=200,
    summary="Response",
    operation_class=takes(ResponseBody, streams=STREAMS),
    responses=REFUSALS,
)
async def responses(
    request: AnyRequest, generator: Provided[Generator], settings: Provided[Settings]
) -> Response[ResponseAnswer]:
    """Answer an input, which is the whole conversation: nothing is stored."""
    passed = PassedOver(strict=settings.strict_parameters)
    body = without_foreign_tools(await read_object(request), passed)
    asked = read(body, ResponseBody, RESPONSES_RULES, passed)
    note_harmless(asked, passed)
    wanted = asked.request()
    started = await generator.start(wanted, asked.model, await caller_of(request))
    reply = Reply(request, started)
    await _note_effort(reply, "reasoning.effort", asked.reasoning.effort, passed)
    answering = Answering(asked, reply.model_id, started.sampling)
    if asked.stream:
        return await reply.stream(ResponseEvents(answering), headers=passed.headers)
    # the events of the stream build the answer; here nobody reads them
    await reply.feed(lambda _, event: list(answering.take(event)))
    return Response(answering.response, headers=passed.headers)


def dialect(_: Host) -> Dialect:
    """Make OpenAI's endpoints."""
    generating = [
        *(chat, completions, responses, input_tokens),
        *(embeddings, rerank, tokenize, detokenize),
    ]
    return Dialect(
        paths=(
            *("/v1", "/tokenize", "/detokenize", "/embeddings", "/rerank"),
            *("/version", "/load", "/ping"),
        ),
        # `/models/…` is LocalLab's
        visits=[
            Visit(method=method, path=path, own=f"/v1{path}", known=lambda _: True)
            for method, path in WITHOUT_V1
        ],
        router=Router(
            path="/",
            route_handlers=[
                Router(
                    path="/",
                    route_handlers=generating,
                    guards=[signed_in_if_required, within_chosen_rate_limit],
                ),
                Router(
                    path="/",
                    route_handlers=[list_models, show_model, show_version, show_load],
                    guards=[signed_in_if_required],
                ),
                ping,
            ],
            middleware=[wire.timed],
            tags=["OpenAI"],
        ),
        refuse=wire.refuse,
        envelope=wire.envelope,
        headers=wire.own_headers,
    )


async def _echo(
    generator: Generator, asked: CompletionBody, prompt: Given, caller: Caller
) -> str | None:
    """What a prompt's texts begin with; None: nothing."""
    if not asked.echo:
        return None
    if isinstance(prompt, str):
        return prompt
    return await generator.detokenize(prompt, asked.model, caller)


async def _note_effort(reply: Reply, field: str, effort: str | None, passed: PassedOver) -> None:
    """Note that a model was asked to think and can't.

    Raises:
        Unsupported: the server takes no such thing; the generations are closed.
    """
    if effort in (None, "none") or reply.thinks:
        return
    try:
        passed.note(field, effort, "this model doesn't think before it answers")
    except BaseException:
        await reply.aclose()
        raise
