"""OpenAI's endpoints for text. Those of models and of tokens have files of their own."""

from typing import Final

from litestar import Litestar, Response, post
from litestar.di import Provide

from app.auth.guards import signed_in, signed_in_if_required, within_chosen_rate_limit
from app.contract.generation import Caller, Generator
from app.dialects.kit.body import read_object, takes
from app.dialects.kit.callers import caller_of
from app.dialects.kit.dialect import Dialect, Visit
from app.dialects.kit.framing import EVENT_STREAM
from app.dialects.kit.host import AnyRequest, Host, Provided
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.router import OwnRouter
from app.dialects.kit.streaming import Reply
from app.dialects.openai import wire
from app.dialects.openai.batches.files import (
    delete_file,
    list_files,
    read_file,
    show_file,
    upload_file,
)
from app.dialects.openai.batches.routes import cancel_batch, list_batches, make_batch, show_batch
from app.dialects.openai.batches.running import BatchRunner
from app.dialects.openai.chat_schemas import CHAT_RULES, ChatBody
from app.dialects.openai.chat_wire import ChatAnswer, ChatChunks, Shown
from app.dialects.openai.completions_schemas import COMPLETIONS_RULES, CompletionBody, Given
from app.dialects.openai.completions_wire import CompletionAnswer, CompletionChunks
from app.dialects.openai.embeddings import embeddings
from app.dialects.openai.models import list_models, show_model
from app.dialects.openai.probes import ping, show_load, show_version
from app.dialects.openai.rerank import rerank
from app.dialects.openai.responses.kept import ResponseKeeper
from app.dialects.openai.responses.routes import (
    cancel_response,
    delete_response,
    input_tokens,
    list_input_items,
    make_response,
    show_response,
)
from app.dialects.openai.taken import note_effort, read
from app.dialects.openai.tokens import apply_template, detokenize, tokenize, tokenizer_info
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
    async with reply.guarded():
        note_effort("reasoning_effort", asked.reasoning_effort, passed, thinks=reply.thinks)
    if asked.stream:
        chunks = ChatChunks(reply, asked.n, asked.extras, reasoning=asked.include_reasoning)
        return await reply.stream(chunks, headers=passed.headers)
    shown = Shown(asked.logprobs, asked.include_reasoning)
    answer = ChatAnswer.of(reply, await reply.whole(), asked.extras, shown)
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
    async with reply.guarded():
        if asked.echo and asked.truncate_prompt_tokens is not None:
            prompts = [list(reply.prompt_ids(i * asked.n)) for i in range(len(prompts))]
        echoes = [await _echo(generator, asked, prompt, caller) for prompt in prompts]
    if asked.stream:
        told = asked.echo and asked.logprobs is not None
        chunks = CompletionChunks(reply, asked.n, echoes, asked.extras, echoes_logprobs=told)
        return await reply.stream(chunks, headers=passed.headers)
    answer = CompletionAnswer.of(
        reply, await reply.whole(), asked.n, echoes, asked.extras, logprobs=asked.logprobs
    )
    return Response(answer, headers=passed.headers)


def dialect(host: Host) -> Dialect:
    """Make OpenAI's endpoints."""
    generating = [
        *(chat, completions, make_response, input_tokens),
        *(embeddings, rerank, tokenize, detokenize, apply_template),
    ]
    reading = [
        *(list_models, show_model, show_version, show_load, tokenizer_info),
        *(show_response, list_input_items, delete_response, cancel_response),
    ]
    filed = [
        *(upload_file, list_files, show_file, read_file, delete_file),
        *(make_batch, list_batches, show_batch, cancel_batch),
    ]
    keeper = ResponseKeeper(host.database, host.settings)
    runner = BatchRunner(host.database, host.settings)

    async def open_all(application: Litestar) -> None:
        keeper.start()
        runner.start(application)

    async def close_all() -> None:
        await runner.close()
        await keeper.finish()

    return Dialect(
        paths=(
            *("/v1", "/tokenize", "/detokenize", "/embeddings", "/rerank"),
            *("/version", "/load", "/ping", "/tokenizer_info", "/apply-template"),
        ),
        # `/models/…` is LocalLab's
        visits=[
            Visit(method=method, path=path, own=f"/v1{path}", known=lambda _: True)
            for method, path in WITHOUT_V1
        ],
        router=OwnRouter(
            path="/",
            route_handlers=[
                OwnRouter(
                    path="/",
                    route_handlers=generating,
                    guards=[signed_in_if_required, within_chosen_rate_limit],
                ),
                OwnRouter(
                    path="/",
                    route_handlers=reading,
                    guards=[signed_in_if_required],
                ),
                OwnRouter(path="/", route_handlers=filed, guards=[signed_in]),
                ping,
            ],
            dependencies={
                "keeper": Provide(lambda: keeper, sync_to_thread=False),
                "runner": Provide(lambda: runner, sync_to_thread=False),
                "database": Provide(lambda: host.database, sync_to_thread=False),
            },
            middleware=[wire.timed],
            tags=["OpenAI"],
        ),
        refuse=wire.refuse,
        envelope=wire.envelope,
        headers=wire.own_headers,
        open=open_all,
        close=close_all,
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
