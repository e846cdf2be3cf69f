"""Answers without a server: a model in this process, for one person.

Knows no HTTP; the engine, templates and checks are those that a server has.
"""

from collections.abc import AsyncIterator, Sequence

import msgspec

from app.catalog.catalog import Catalog
from app.cli.answerer import Clock, Ended, Sampling, Turn
from app.cli.models import full_name, model_names
from app.contract.conversation import ChatMessage
from app.contract.generation import Finished, GenerationRequest, TextDelta, ToolCallDelta
from app.contract.sampling import SamplingParams
from app.generation.service import GenerationService
from app.settings import Settings


class InProcess:
    """A model in this process; an `Answerer`."""

    def __init__(self, settings: Settings) -> None:
        # one person reads one answer at a time
        self._settings = msgspec.structs.replace(settings, slots=settings.slots or 1)
        self._catalog = Catalog(self._settings)
        self._service = GenerationService(self._catalog)
        self._model = ""

    @property
    def model(self) -> str:
        """The model that writes."""
        return self._model

    @property
    def where(self) -> str:
        """Where it runs, in words."""
        return "in this process"

    async def names(self) -> list[str]:
        """Models that there are."""
        return model_names(self._settings.models_dir)

    async def use(self, model: str) -> None:
        """Load a model, in the place of the one before.

        Raises:
            Error: it can't be loaded.
        """
        wanted = full_name(model, await self.names())
        await self._catalog.load(wanted)
        self._model = wanted

    async def answer(self, turns: Sequence[Turn], sampling: Sampling) -> AsyncIterator[str | Ended]:
        """Write an answer; see `Answerer`."""
        request = GenerationRequest(
            messages=[ChatMessage.of(turn.role, turn.content) for turn in turns],
            # for a model without a chat template
            prompt="\n".join(turn.content for turn in turns),
            max_tokens=sampling.max_tokens,
            sampling=SamplingParams(
                temperature=sampling.temperature, top_p=sampling.top_p, seed=sampling.seed
            ),
        )
        clock = Clock()
        generation = await self._service.start(request, self._model)
        try:
            async for event in generation:
                match event:
                    case TextDelta(text):
                        clock.piece()
                        yield text
                    case ToolCallDelta():
                        yield event.arguments
                    case Finished(reason, usage):
                        yield clock.ended(usage.prompt_tokens, usage.completion_tokens, reason)
        finally:
            await generation.aclose()

    async def close(self) -> None:
        """Give the memory back."""
        await self._catalog.close()
