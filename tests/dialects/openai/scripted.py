"""A service that records its requests and plays events, and the dialect over it."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace

from litestar import Litestar
from litestar.di import Provide

from app.catalog.catalog import Catalog
from app.contract.conversation import ToolCall
from app.contract.generation import (
    Event,
    Finished,
    GenerationRequest,
    PromptLogprobs,
    PromptToken,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
    Whole,
)
from app.contract.sampling import FinishReason
from app.dialects.fallback import fallback_handlers
from app.dialects.openai import routes, wire
from app.errors import BatchTooLarge, ContextOverflow, UnknownModel
from app.generation.service import GenerationService
from app.manifest import Manifest
from tests.asgi_client import Answer, ask
from tests.fakes import MODEL_ID, fake_manifest

Script = Sequence[Event | Exception | asyncio.Event]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
HI = [{"role": "user", "content": "Hi"}]
NEEDED = {
    CHAT: {"model": MODEL_ID, "messages": HI},
    COMPLETIONS: {"model": MODEL_ID, "prompt": "Hi"},
    RESPONSES: {"model": MODEL_ID, "input": "Hi"},
}
"""The least that an endpoint takes."""


def end(reason: FinishReason = FinishReason.STOP, *, tokens: int = 2, cached: int = 1) -> Finished:
    return Finished(reason, Usage(3, tokens, cached))


def logprob(text: str, value: float = -0.5, *others: tuple[str, float]) -> TokenLogprob:
    tops = tuple(TokenLogprob(9, other, other.encode(), at) for other, at in others)
    return TokenLogprob(7, text, text.encode(), value, tops)


def prompt_token(text: str, value: float | None, *others: tuple[str, float]) -> PromptToken:
    tops = tuple(TokenLogprob(9, other, other.encode(), at) for other, at in others)
    return PromptToken(7, text, text.encode(), value, tops)


class ScriptedGeneration:
    """Plays events: an asyncio.Event is waited for, an error raised."""

    model_id = MODEL_ID

    def __init__(self, script: Script) -> None:
        self._script = list(script)
        self.closed = False

    def __aiter__(self) -> "ScriptedGeneration":
        return self

    async def __anext__(self) -> Event:
        await asyncio.sleep(0)
        while self._script and isinstance(self._script[0], asyncio.Event):
            await self._script.pop(0).wait()
        if self.closed or not self._script:
            raise StopAsyncIteration
        event = self._script.pop(0)
        if isinstance(event, Exception):
            raise event
        return event

    async def collect(self) -> Whole:
        text, logprobs, prompt, calls = "", [], None, {}
        async for event in self:
            match event:
                case PromptLogprobs():
                    prompt = event
                case TextDelta(piece, tokens):
                    text += piece
                    logprobs += tokens
                case ToolCallDelta(index, call_id, name, arguments):
                    known = calls.get(index, ToolCall(call_id or "", name or "", ""))
                    calls[index] = ToolCall(known.id, known.name, known.arguments + arguments)
                case Finished():
                    return Whole(text, tuple(logprobs), prompt, tuple(calls.values()), event)
        raise AssertionError("a script ends with Finished")

    async def aclose(self) -> None:
        self.closed = True


class ScriptedService(GenerationService):
    """One model, whose capacity is 40 and which runs 4 at once."""

    def __init__(self, *scripts: Script) -> None:
        """Take a script for each generation; the last one is played for all further ones."""
        self._scripts = scripts or ([TextDelta("Hello"), end()],)
        self.requests: list[GenerationRequest] = []
        self.generations: list[ScriptedGeneration] = []
        self.tokenized: list[tuple] = []

    async def start(
        self, request: GenerationRequest, model_id: str, tenant: str
    ) -> ScriptedGeneration:
        [generation] = await self.start_batch([request], model_id, tenant)
        return generation

    async def start_batch(
        self, requests: Sequence[GenerationRequest], model_id: str, _tenant: str
    ) -> list[ScriptedGeneration]:
        if model_id != MODEL_ID:
            raise UnknownModel(model_id)
        if len(requests) > 4:
            raise BatchTooLarge(len(requests), 4)
        if any(len(request.prompt or "") > 40 for request in requests):
            raise ContextOverflow(50, 40)
        self.requests += requests
        last = len(self._scripts) - 1
        made = [ScriptedGeneration(self._scripts[min(i, last)]) for i in range(len(requests))]
        self.generations += made
        return made

    async def tokenize(self, text: object, model_id: str, add_special_tokens: bool) -> list[int]:
        self.tokenized.append((text, model_id, add_special_tokens))
        return [1, 2, 3]

    async def detokenize(self, ids: Sequence[int], model_id: str) -> str:
        if model_id != MODEL_ID:
            raise UnknownModel(model_id)
        return "".join(map(chr, ids))


class ScriptedCatalog(Catalog):
    """One model, in memory with less room than it was trained for."""

    def __init__(self) -> None:
        """Open nothing."""

    @property
    def loaded(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(model_id=MODEL_ID, engine=SimpleNamespace(capacity=40))]

    def available(self) -> list[Manifest]:
        return [fake_manifest(), fake_manifest("test/other")]

    def read(self, model_id: str) -> Manifest:
        for manifest in self.available():
            if manifest.model_id == model_id:
                return manifest
        raise UnknownModel(model_id)

    async def get(self, model_id: str) -> SimpleNamespace:
        self.read(model_id)
        return self.loaded[0]


def app_for(service: ScriptedService) -> Litestar:
    return Litestar(
        [routes.router(ScriptedCatalog())],
        dependencies={"service": Provide(lambda: service, sync_to_thread=False)},
        exception_handlers=fallback_handlers({"": wire.envelope}),
        before_send=[wire.add_headers],
        logging_config=None,
    )


async def post(service: ScriptedService, path: str, /, **fields: object) -> Answer:
    """Send the least that the endpoint takes, and more."""
    return await ask(app_for(service), "POST", path, {**NEEDED.get(path, {}), **fields})
