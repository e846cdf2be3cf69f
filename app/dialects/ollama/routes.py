"""Ollama's endpoints for text, and its hello at `/`."""

from collections.abc import Mapping
from typing import Final

from litestar import Response, get, post
from litestar.di import Provide

from app.auth.guards import (
    admin_or_loopback,
    from_no_other_site,
    signed_in_if_required,
    within_chosen_rate_limit,
)
from app.contract.generation import Generator
from app.contract.models import ModelRegistry
from app.dialects.kit.body import Body, read_object, takes
from app.dialects.kit.callers import caller_of, may_manage
from app.dialects.kit.dialect import Dialect, Visit
from app.dialects.kit.framing import NDJSON
from app.dialects.kit.host import AnyRequest, Host, Provided
from app.dialects.kit.host_header import ANY_HOST
from app.dialects.kit.passed_over import PassedOver
from app.dialects.kit.router import OwnRouter
from app.dialects.kit.streaming import Reply
from app.dialects.ollama import library, models, wire
from app.dialects.ollama.answers import Answering, Clock, Kind, Line, Lines, empty_answer
from app.dialects.ollama.embeddings import embed, embeddings
from app.dialects.ollama.keep_alive import KeepAlive, seconds
from app.dialects.ollama.names import resolve
from app.dialects.ollama.options import read_options
from app.dialects.ollama.schemas import ChatBody, GenerateBody, read
from app.settings import Settings

REFUSALS: Final = wire.refusals(400, 401, 404, 413, 429, 500, 503)
HELLO: Final = "Ollama is running"
OWN: Final = "/ollama"


@post(
    "/api/chat",
    status_code=200,
    summary="Chat",
    operation_class=takes(ChatBody, streams=(NDJSON,)),
    responses=REFUSALS,
)
async def chat(request: AnyRequest, speaking: Provided["Speaking"]) -> Response[Line]:
    """Write the assistant's next turn of a conversation, or let it call tools."""
    return await speaking.answer(request, "chat", ChatBody)


@post(
    "/api/generate",
    status_code=200,
    summary="Generate",
    operation_class=takes(GenerateBody, streams=(NDJSON,)),
    responses=REFUSALS,
)
async def generate(request: AnyRequest, speaking: Provided["Speaking"]) -> Response[Line]:
    """Answer a prompt, or go on from it where it is raw."""
    return await speaking.answer(request, "generate", GenerateBody)


@get(OWN, summary="Hello", media_type="text/plain", opt=ANY_HOST)
async def hello() -> str:
    """Say what Ollama's clients wait for; `/` is this to whoever doesn't ask for HTML."""
    return HELLO


class Speaking:
    """What chats and generations have in common."""

    def __init__(self, host: Host, keep_alive: KeepAlive) -> None:
        self._models: ModelRegistry = host.models
        self._generator: Generator = host.generator
        self._settings: Settings = host.settings
        self._keep_alive = keep_alive

    async def answer(
        self, request: AnyRequest, kind: Kind, body_type: type[ChatBody] | type[GenerateBody]
    ) -> Response[Line]:
        """Answer a request for text."""
        clock = Clock()
        ignored = PassedOver(strict=self._settings.strict_parameters)
        body: Body = await read_object(request, typed=False)
        asked: ChatBody | GenerateBody = read(body, body_type, ignored)
        facts = await resolve(self._models, asked.model)
        loaded = {model.model_id: model.capacity for model in self._models.loaded}
        context = loaded.get(facts.base_id, facts.context_length)
        options = read_options(asked.options, context, ignored)
        keep_s = None if asked.keep_alive is None else seconds(asked.keep_alive)
        if asked.keep_alive is not None and not may_manage(request):
            ignored.note("keep_alive", asked.keep_alive, "models are the administrators' to unload")
            obeyed = False
        else:
            obeyed = asked.keep_alive is not None
        if asked.empty:
            leaves = obeyed and keep_s == 0
            if leaves:
                await self._models.unload(facts.model_id)
            else:
                await self._models.load(facts.model_id)
                if obeyed:
                    self._keep_alive.keep(facts.base_id, keep_s)
            answer = empty_answer(kind, asked.model, "unload" if leaves else "load", clock)
            return Response(answer, headers=ignored.headers)
        caller = await caller_of(request)
        started = await self._generator.start(asked.request(options), facts.model_id, caller)
        clock.start()
        if obeyed:
            self._keep_alive.keep(facts.base_id, keep_s)
        reply, answering = Reply(request, started), Answering(kind, asked.model, clock)
        async with reply.guarded():
            asked.note_thinking(ignored, thinks=reply.thinks)
        if asked.stream:
            return await reply.stream(Lines(answering), NDJSON, ignored.headers)
        # the lines of the stream carry the answer; here nobody reads them
        await reply.feed(lambda _, event: answering.take(event))
        return Response(answering.whole(), headers=ignored.headers)


def dialect(host: Host) -> Dialect:
    """Make Ollama's endpoints."""
    keep_alive = KeepAlive(host.models, host.generator)
    speaking = Speaking(host, keep_alive)
    looking = [models.tags, models.processes, models.show]
    changing = [library.pull, library.copy, library.remove]
    return Dialect(
        paths=(
            *(
                "/api/chat",
                "/api/generate",
                "/api/embed",
                "/api/embeddings",
                "/api/tags",
                "/api/ps",
                "/api/show",
                "/api/version",
            ),
            *("/api/pull", "/api/push", "/api/copy", "/api/delete", "/api/create", "/api/blobs"),
            OWN,
        ),
        router=OwnRouter(
            path="/",
            route_handlers=[
                hello,
                models.version,
                OwnRouter(
                    path="/",
                    route_handlers=[chat, generate, embed, embeddings],
                    guards=[signed_in_if_required, within_chosen_rate_limit],
                    dependencies={"speaking": Provide(lambda: speaking, sync_to_thread=False)},
                ),
                OwnRouter(
                    path="/",
                    route_handlers=looking,
                    guards=[signed_in_if_required],
                    dependencies={"keep_alive": Provide(lambda: keep_alive, sync_to_thread=False)},
                ),
                OwnRouter(
                    path="/",
                    route_handlers=changing,
                    guards=[from_no_other_site, admin_or_loopback],
                ),
            ],
            tags=["Ollama"],
        ),
        refuse=wire.refuse,
        envelope=wire.envelope,
        visits=[Visit(method="GET", path="/", own=OWN, known=_asks_for_no_page)],
        close=keep_alive.close,
    )


def _asks_for_no_page(headers: Mapping[bytes, bytes]) -> bool:
    return b"text/html" not in headers.get(b"accept", b"").lower()
