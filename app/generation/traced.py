"""Generations that a trace follows, from before they start until the last of a request has ended.

Knows no HTTP, and of OpenTelemetry nothing that `app.tracing` doesn't.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from app.contract.followed import Followed
from app.contract.generation import Caller, Event, Finished, Generation, GenerationRequest
from app.contract.sampling import FinishReason
from app.generation.generation import EmptyGeneration, EngineGeneration
from app.tracing import Asked, Ended, RequestSpan, Tracing

Started = EngineGeneration | EmptyGeneration
Start = Callable[[Sequence[GenerationRequest], str | None, Caller], Awaitable[Sequence[Started]]]


async def start_traced(
    tracing: Tracing,
    start: Start,
    requests: Sequence[GenerationRequest],
    model_id: str | None,
    caller: Caller,
) -> list[Generation]:
    """Start generations within a span of their request.

    Raises:
        Error: what `start` raises; the span says so.
    """
    span = tracing.begin(_asked(requests, model_id), *caller.trace)
    try:
        started = await start(requests, model_id, caller)
    except BaseException as error:
        span.fail(error, cancelled=isinstance(error, asyncio.CancelledError))
        raise
    span.started(started[0].model_id, len(started))
    return [TracedGeneration(one, index, span) for index, one in enumerate(started)]


class TracedGeneration(Followed[Started]):
    """A generation that tells its request's span how it ended."""

    def __init__(self, generation: Started, index: int, span: RequestSpan) -> None:
        """Follow one of a request's generations, the `index`-th."""
        super().__init__(generation)
        self._index = index
        self._span = span
        self._told = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; the last one is `Finished`.

        Raises:
            ServerError, ShuttingDown: the generation failed.
        """
        try:
            event = await anext(self._generation)
        except (StopAsyncIteration, asyncio.CancelledError):
            raise
        except BaseException as error:
            self._tell(FinishReason.ERROR, error)
            raise
        if isinstance(event, Finished):
            self._tell(event.reason)
        return event

    async def aclose(self) -> None:
        """Free the slot; harmless when repeated or after the end."""
        await self._generation.aclose()
        self._tell(FinishReason.CANCELLED)

    def _tell(self, reason: FinishReason, error: BaseException | None = None) -> None:
        if not self._told:
            self._told = True
            ended = Ended(
                reason=reason.value,
                times=self._generation.times,
                usage=self._generation.usage,
                error=error,
            )
            self._span.generation_ended(self._index, ended)


def _asked(requests: Sequence[GenerationRequest], model_id: str | None) -> Asked:
    first = requests[0]
    return Asked(
        operation="chat" if first.messages else "text_completion",
        model_id=model_id,
        max_tokens=first.max_tokens,
        temperature=first.sampling.temperature,
        top_p=first.sampling.top_p,
        top_k=first.sampling.top_k,
        presence_penalty=first.sampling.presence_penalty,
        frequency_penalty=first.sampling.frequency_penalty,
        seed=first.sampling.seed,
        json=first.response_format is not None,
    )
