"""Text in, text out: what every dialect calls.

A request gets its place in the engine first, then what is costly is done (template, tokens).
All that can be refused is refused by `start`, before the first event. Knows no HTTP, no users.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from app.catalog.catalog import Catalog
from app.catalog.loaded import LoadedModel
from app.contract.conversation import ChatMessage
from app.contract.generation import GenerationRequest
from app.contract.sampling import FinishReason
from app.engine.sequence import EngineRequest, TokenEvent
from app.engine.stream import TokenStream
from app.errors import Error
from app.generation.generation import Generation
from app.generation.prepare import Prepared, check_ids, prepare, tokenize

T = TypeVar("T")

# Characters; longer texts are tokenized off the event loop, which these hold for 1.4 ms
# (SmolLM2's tokenizer, one core of a 2-core virtual machine).
_LONG_TEXT: Final = 4_000


@dataclass(frozen=True, slots=True)
class Status:
    """What the service is doing now."""

    healthy: bool
    """False: the engine can't go on."""
    model_id: str | None = None
    slots: int = 0
    running: int = 0
    waiting: int = 0


class GenerationService:
    """Starts generations on the models of a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.num_started = 0
        """Requests that generate or did, since the server's start; a batch is one."""

    def status(self) -> Status:
        """Look at the current model, without waiting for anything."""
        model = self._catalog.current
        if model is None:
            return Status(healthy=True)
        load = model.engine.load
        return Status(
            healthy=model.engine.failure is None,
            model_id=model.manifest.model_id,
            slots=load.slots,
            running=load.running,
            waiting=load.waiting,
        )

    async def start(
        self, request: GenerationRequest, model_id: str | None = None, tenant: str = ""
    ) -> Generation:
        """Start one generation; close it in any case.

        Args:
            request: what to generate.
            model_id: None for the current model.
            tenant: who shares kept prefixes with nobody else; "" is everybody without a name.

        Raises:
            RequestError, TryAgainLater, ServerError: nothing was started.
        """
        [generation] = await self.start_batch([request], model_id, tenant)
        return generation

    async def start_batch(
        self, requests: Sequence[GenerationRequest], model_id: str | None = None, tenant: str = ""
    ) -> list[Generation]:
        """Start all of the requests or none; they share the engine's steps.

        Raises:
            RequestError, TryAgainLater, ServerError: nothing was started.
        """
        model, places = await self._catalog.reserve(model_id, len(requests))
        with places:
            all_prepared = await _off_loop_if_long(
                sum(map(_length, requests)),
                lambda: [prepare(model, request, tenant) for request in requests],
            )
            engine_requests = [await _constrained(model, prepared) for prepared in all_prepared]
            generations: list[Generation] = []
            try:
                for request, prepared, engine_request in zip(
                    requests, all_prepared, engine_requests, strict=True
                ):
                    needless = prepared.prompt_only and request.prompt_logprobs is None
                    generation = Generation(
                        _ended_stream() if needless else places.submit(engine_request),
                        model.tokenizer,
                        engine_request,
                        model_id=model.manifest.model_id,
                        stop=request.stop,
                        silent_ids=prepared.silent_ids,
                        shown=prepared.format.tokens if prepared.format else (),
                        calls=prepared.parser(),
                        prompt_only=prepared.prompt_only,
                    )
                    generations.append(generation)
            except Error:
                for generation in generations:
                    await generation.aclose()
                raise
        self.num_started += 1
        return generations

    async def tokenize(
        self,
        text: str | Sequence[ChatMessage],
        model_id: str | None = None,
        *,
        add_special_tokens: bool = True,
    ) -> list[int]:
        """Give the tokens of a text, or of a conversation as the model would get it.

        Raises:
            RequestError, TryAgainLater, ServerError: there is no such model, or it takes no
                such conversation.
        """
        model = await self._catalog.get(model_id)
        long = len(text) if isinstance(text, str) else sum(map(_message_length, text))
        return await _off_loop_if_long(
            long, lambda: tokenize(model, text, add_special_tokens=add_special_tokens)
        )

    async def detokenize(self, ids: Sequence[int], model_id: str | None = None) -> str:
        """Give the text of tokens, special ones too.

        Raises:
            RequestError, TryAgainLater, ServerError: there is no such model or no such token.
        """
        model = await self._catalog.get(model_id)

        def decode() -> str:
            check_ids("tokens", ids, model.manifest.graph.vocab_size)
            text: str = model.tokenizer.decode(list(ids), skip_special_tokens=False)
            return text

        return await _off_loop_if_long(len(ids), decode)


async def _off_loop_if_long(characters: int, work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work) if characters > _LONG_TEXT else work()


async def _constrained(model: LoadedModel, prepared: Prepared) -> EngineRequest:
    """Compile the grammar, if there is one; off the event loop."""
    if prepared.grammar is None:
        return prepared.engine
    constraint = await model.grammars.constraint(prepared.grammar)
    return msgspec.structs.replace(prepared.engine, constraint=constraint)


def _ended_stream() -> TokenStream:
    """For who wants no token and no figures of the prompt: there is nothing to run."""
    stream = TokenStream(lambda _: None)
    stream.put(TokenEvent(None, FinishReason.LENGTH))
    return stream


def _length(request: GenerationRequest) -> int:
    """Characters to tokenize, about."""
    tools = sum(len(str(tool.parameters)) for tool in request.tools)
    return len(request.prompt or "") + tools + sum(map(_message_length, request.messages))


def _message_length(message: ChatMessage) -> int:
    return len(message.text) + sum(len(call.arguments) for call in message.tool_calls)
