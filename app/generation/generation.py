"""Generations as dialects hold them: events come out one by one, and closing one frees its slot.

Knows no HTTP and nothing of how the request came about.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Self

from app.contract.generation import Event, Finished
from app.contract.sampling import FinishReason, SamplingParams
from app.contract.usage import Timings, Usage
from app.current_request import count_tokens
from app.engine.stream import TokenStream
from app.errors import Error
from app.generation.reading import TextReader
from app.metrics import RequestTimes


class EngineGeneration:
    """One text that the engine makes; a `Generation` of the contract.

    It frees its slot by itself when it ends, fails, or the task that waits for it is cancelled.
    """

    def __init__(
        self,
        model_id: str,
        sampling: SamplingParams,
        stream: TokenStream,
        reader: TextReader,
        digest: str = "",
    ) -> None:
        """Begin to listen.

        Args:
            model_id: the model that writes.
            sampling: how its tokens are chosen.
            stream: where the tokens come from.
            reader: makes text of them.
            digest: of the model's files.
        """
        self.model_id = model_id
        self.sampling = sampling
        self.digest = digest
        self._stream = stream
        self._reader = reader
        self._ready: deque[Event] = deque()
        self._closed = False

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return self._reader.usage

    @property
    def prompt_ids(self) -> Sequence[int]:
        """The prompt's tokens."""
        return self._reader.prompt_ids

    @property
    def token_ids(self) -> Sequence[int]:
        """Every token that was read so far."""
        return self._reader.token_ids

    @property
    def times(self) -> RequestTimes:
        """When it was where in the engine."""
        return self._stream.times

    @property
    def timings(self) -> Timings | None:
        """How long it has taken so far; None before the first token."""
        times, usage = self.times, self.usage
        if times.admitted_s is None or times.first_token_s is None or times.last_token_s is None:
            return None
        return Timings(
            cached_tokens=usage.cached_tokens,
            prompt_tokens=usage.prompt_tokens - usage.cached_tokens,
            prompt_s=times.first_token_s - times.admitted_s,
            generated_tokens=usage.completion_tokens,
            generation_s=times.last_token_s - times.first_token_s,
        )

    @property
    def thinks(self) -> bool:
        """Whether the model may think before its answer."""
        return self._reader.thinks

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; the last one is `Finished`.

        Raises:
            ServerError, ShuttingDown: the generation failed.
        """
        if self._closed:
            raise StopAsyncIteration
        reader = self._reader
        try:
            while not self._ready and reader.end is None:
                events = await self._stream.next()
                for _ in reader.spelling(events):
                    await asyncio.sleep(0)  # others on the event loop
                self._ready += reader.read(events)
                if isinstance(reader.end, FinishReason):
                    self._stream.abort(reader.end)  # the engine may not know of the end
        except BaseException:  # a cancelled task too must give its slot back
            await self.aclose()
            raise
        if self._ready:
            return self._ready.popleft()
        await self.aclose()
        if isinstance(reader.end, Error):
            raise reader.end
        return reader.finished

    async def aclose(self) -> None:
        """Free the slot; harmless when repeated or after the end."""
        if not self._closed:
            self._closed = True
            self._stream.abort()
            count_tokens(tokens=len(self._reader.token_ids))


class EmptyGeneration:
    """A text of no tokens, for a request that wants neither any nor its prompt's logprobs."""

    def __init__(
        self,
        model_id: str,
        sampling: SamplingParams,
        prompt_ids: Sequence[int],
        digest: str = "",
    ) -> None:
        self.model_id = model_id
        self.digest = digest
        self.timings: Timings | None = None
        self.sampling = sampling
        self.prompt_ids = prompt_ids
        self.token_ids: Sequence[int] = ()
        self.usage = Usage(len(prompt_ids), 0)
        self.thinks = False
        self._finished: Finished | None = Finished(FinishReason.LENGTH, self.usage)

    @property
    def times(self) -> None:
        """It has never been in the engine."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return `Finished`, once."""
        if self._finished is None:
            raise StopAsyncIteration
        finished, self._finished = self._finished, None
        return finished

    async def aclose(self) -> None:
        """Forget the event; there is nothing to free."""
        self._finished = None
