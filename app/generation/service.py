"""Text in, text out: what every dialect calls.

A request gets its place in the engine first, then what is costly is done (template, tokens).
All that can be refused is refused by `start`, before the first event. Knows no HTTP, no users.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.catalog.catalog import Catalog
from app.catalog.loaded import LoadedModel
from app.engine.sequence import EngineRequest
from app.errors import ContextOverflow, Error, InvalidParameter, RequestError
from app.generation.generation import Generation
from app.generation.requests import GenerationRequest

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

    async def start(self, request: GenerationRequest, model_id: str | None = None) -> Generation:
        """Start one generation; close it in any case.

        Raises:
            RequestError, TryAgainLater, ServerError: nothing was started.
        """
        [generation] = await self.start_batch([request], model_id)
        return generation

    async def start_batch(
        self, requests: Sequence[GenerationRequest], model_id: str | None = None
    ) -> list[Generation]:
        """Start all of the requests or none; they share the engine's steps.

        Raises:
            RequestError, TryAgainLater, ServerError: nothing was started.
        """
        model, places = await self._catalog.reserve(model_id, len(requests))
        with places:
            engine_requests = await _prepare_all(model, requests)
            generations: list[Generation] = []
            try:
                for request, engine_request in zip(requests, engine_requests, strict=True):
                    generation = Generation(
                        places.submit(engine_request),
                        model.tokenizer,
                        model_id=model.manifest.model_id,
                        prompt_tokens=len(engine_request.prompt_ids),
                        stop=request.stop,
                    )
                    generations.append(generation)
            except Error:
                for generation in generations:
                    await generation.aclose()
                raise
        self.num_started += 1
        return generations


async def _prepare_all(
    model: LoadedModel, requests: Sequence[GenerationRequest]
) -> list[EngineRequest]:
    def prepare() -> list[EngineRequest]:
        return [_prepare(model, request) for request in requests]

    if sum(map(_length, requests)) > _LONG_TEXT:
        return await asyncio.to_thread(prepare)
    return prepare()


def _prepare(model: LoadedModel, request: GenerationRequest) -> EngineRequest:
    """Template, tokens, limits."""
    if model.chat_template is not None and request.messages:
        text = model.chat_template.render(request.messages)
        # the template writes the special tokens itself
        ids = model.tokenizer.encode(text, add_special_tokens=False).ids
    elif request.prompt is not None:
        ids = model.tokenizer.encode(request.prompt, add_special_tokens=True).ids
    else:
        raise RequestError(
            f"model {model.manifest.model_id} has no chat template: "
            "it takes a prompt, not messages or a system prompt"
        )
    if not ids:
        raise InvalidParameter("prompt", request.prompt, "a text of at least one token")
    if len(ids) > model.engine.capacity:
        raise ContextOverflow(len(ids), model.engine.capacity)
    return EngineRequest(
        prompt_ids=ids,
        max_tokens=request.max_tokens,
        sampling=request.sampling,
        stop_ids=frozenset(model.manifest.tokens.eos_ids),
        max_time_s=request.max_time_s,
    )


def _length(request: GenerationRequest) -> int:
    """Characters to tokenize."""
    return len(request.prompt or "") + sum(len(message.content) for message in request.messages)
