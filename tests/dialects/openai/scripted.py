"""A service that records its requests and plays events, and the dialect over it."""

import asyncio
import hashlib
from collections.abc import Sequence

from litestar import Litestar

from app.catalog.shelf import facts_of
from app.contract.conversation import ChatMessage, Tool
from app.contract.generation import (
    NOBODY,
    Caller,
    Event,
    Finished,
    Generation,
    GenerationRequest,
    Generator,
    TextDelta,
)
from app.contract.models import ModelFacts
from app.contract.sampling import FinishReason, SamplingParams
from app.contract.tokens import AddedToken, PromptToken, TokenizedText, TokenizerFacts, TokenLogprob
from app.contract.usage import Timings, Usage
from app.dialects.locallab import routes as locallab
from app.dialects.openai import routes as openai
from app.dialects.openai.extras import VERSION
from app.errors import BatchTooLarge, ContextOverflow, UnknownModel
from tests.asgi_client import Answer, ask
from tests.fakes import MODEL_ID, FakeCatalog, FakeEngine, FakeModel, fake_manifest
from tests.hosts import app_over, host_over

Script = Sequence[Event | Exception | asyncio.Event]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
HI = [{"role": "user", "content": "Hi"}]
NEEDED: dict[str, dict[str, object]] = {
    CHAT: {"model": MODEL_ID, "messages": HI},
    COMPLETIONS: {"model": MODEL_ID, "prompt": "Hi"},
    RESPONSES: {"model": MODEL_ID, "input": "Hi"},
}
"""The least that an endpoint takes."""


TIMINGS = Timings(
    cached_tokens=1, prompt_tokens=2, prompt_s=0.5, generated_tokens=5, generation_s=2.0
)
_MADE_BY = f"{VERSION}\nd1\n".encode()
FINGERPRINT = f"fp_{hashlib.sha256(_MADE_BY).hexdigest()[:10]}"
FACTS = TokenizerFacts(
    vocab_size=258,
    capacity=40,
    bos=None,
    eos="<s>",
    chat_template="{{ x }}",
    added={
        1: AddedToken(
            content="<s>",
            special=True,
            lstrip=False,
            rstrip=False,
            single_word=False,
            normalized=False,
        )
    },
)


def end(
    reason: FinishReason = FinishReason.STOP,
    *,
    tokens: int = 2,
    cached: int = 1,
    call_cut: bool = False,
) -> Finished:
    return Finished(reason, Usage(3, tokens, cached), call_cut=call_cut)


def logprob(text: str, value: float = -0.5, *others: tuple[str, float]) -> TokenLogprob:
    tops = tuple(TokenLogprob(9, other, other.encode(), at) for other, at in others)
    return TokenLogprob(7, text, text.encode(), value, tops)


def prompt_token(text: str, value: float | None, *others: tuple[str, float]) -> PromptToken:
    tops = tuple(TokenLogprob(9, other, other.encode(), at) for other, at in others)
    return PromptToken(7, text, text.encode(), value, tops)


class ScriptedGeneration(Generation):
    """Plays events: an asyncio.Event is waited for, an error raised."""

    model_id = MODEL_ID
    usage = Usage(3, 0, 1)
    sampling = SamplingParams()

    prompt_ids = (5, 6, 7)
    digest = "d1"
    timings = TIMINGS

    def __init__(self, script: Script) -> None:
        self._script = list(script)
        self._ids: list[int] = []
        self.waits = False
        """Whether it is at an asyncio.Event that nobody has set."""
        self.closed = False

    @property
    def token_ids(self) -> list[int]:
        """One for each event: 10, 11, …"""
        return self._ids

    def __aiter__(self) -> "ScriptedGeneration":
        return self

    async def __anext__(self) -> Event:
        await asyncio.sleep(0)
        while self._script and not self.closed:
            match self._script.pop(0):
                case asyncio.Event() as gate:
                    self.waits = True
                    await gate.wait()
                    self.waits = False
                case Exception() as error:
                    raise error
                case event:
                    self._ids.append(10 + len(self._ids))
                    return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


class ScriptedService(Generator):
    """One model, whose capacity is 40 and which runs 4 at once."""

    num_started = 0

    def __init__(self, *scripts: Script) -> None:
        """Take a script for each generation; the last one is played for all further ones."""
        self._scripts = scripts or ([TextDelta("Hello"), end()],)
        self.requests: list[GenerationRequest] = []
        self.generations: list[ScriptedGeneration] = []
        self.callers: list[Caller] = []
        """Who had tokens made to text or the other way."""
        self.tokenized: list[tuple[str | Sequence[ChatMessage], str | None, bool]] = []
        self.written: list[GenerationRequest] = []
        """Conversations that were to be written out, or tokenized."""
        self.shown: list[Tool] = []
        """Tools that were shown with what was tokenized."""
        self.continued: list[bool] = []
        """Whether the last turn of what was tokenized is the beginning of an answer."""

    async def start(
        self,
        request: GenerationRequest,
        model_id: str | None = None,
        caller: Caller = NOBODY,
    ) -> ScriptedGeneration:
        [generation] = await self.start_batch([request], model_id, caller)
        return generation

    async def start_batch(
        self,
        requests: Sequence[GenerationRequest],
        model_id: str | None = None,
        caller: Caller = NOBODY,  # noqa: ARG002 # all are one here
    ) -> list[ScriptedGeneration]:
        _check_model(model_id)
        if len(requests) > 4:
            raise BatchTooLarge(len(requests), 4)
        if any(len(request.prompt or "") > 40 for request in requests):
            raise ContextOverflow(50, 40)
        self.requests += requests
        last = len(self._scripts) - 1
        made = [ScriptedGeneration(self._scripts[min(i, last)]) for i in range(len(requests))]
        for generation, request in zip(made, requests, strict=True):
            generation.sampling = request.sampling
        self.generations += made
        return made

    async def tokenize(
        self,
        text: str | GenerationRequest,
        model_id: str | None = None,
        *,
        add_special_tokens: bool = True,
        strings: bool = False,
        caller: Caller = NOBODY,
    ) -> TokenizedText:
        self.callers.append(caller)
        said = text if isinstance(text, str) else self._read(text)
        self.tokenized.append((said, model_id, add_special_tokens))
        return TokenizedText([1, 2, 3], 40, ["a", "b", "c"] if strings else [])

    async def write_out(
        self, request: GenerationRequest, model_id: str | None = None, caller: Caller = NOBODY
    ) -> str:
        self.callers.append(caller)
        _check_model(model_id)
        self._read(request)
        return "written out"

    async def tokenizer_facts(self, model_id: str | None = None) -> TokenizerFacts:
        _check_model(model_id)
        return FACTS

    def _read(self, request: GenerationRequest) -> Sequence[ChatMessage]:
        self.written.append(request)
        self.continued.append(request.continues)
        if request.tool_choice.mode != "none":
            self.shown += request.tools
        return request.messages

    async def detokenize(
        self, ids: Sequence[int], model_id: str | None = None, caller: Caller = NOBODY
    ) -> str:
        self.callers.append(caller)
        _check_model(model_id)
        return "".join(map(chr, ids))


def _check_model(model_id: str | None) -> None:
    if model_id not in (None, MODEL_ID):
        raise UnknownModel(model_id)


class ScriptedModels(FakeCatalog):
    """One model in memory with less room than it was trained for, and another on disk."""

    def __init__(self) -> None:
        super().__init__(FakeModel(FakeEngine((), capacity=40)))

    async def available(self) -> list[ModelFacts]:
        return [facts_of(fake_manifest()), facts_of(fake_manifest("test/other"))]

    async def describe(self, model_id: str) -> ModelFacts:
        for facts in await self.available():
            if facts.model_id == model_id:
                return facts
        raise UnknownModel(model_id)


def app_for(service: ScriptedService) -> Litestar:
    return app_over(host_over(service, ScriptedModels()), [locallab, openai])


async def post(service: ScriptedService, path: str, /, **fields: object) -> Answer:
    """Send the least that the endpoint takes, and more."""
    return await ask(app_for(service), "POST", path, {**NEEDED.get(path, {}), **fields})
