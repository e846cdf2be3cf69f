"""One text in the making: tokens come up from the engine, text and its end go out.

Knows no HTTP and nothing of how the request came about.
"""

import asyncio
from collections.abc import Sequence
from typing import Self

from tokenizers import Tokenizer

from app.engine.sequence import FinishReason, TokenEvent
from app.engine.thread import TokenStream
from app.errors import EngineFailure, Error
from app.generation.detokenizer import Detokenizer
from app.generation.requests import Finished, TextDelta, Usage
from app.generation.stop_strings import StopStrings


class Generation:
    """One text in the making: iterate for `TextDelta`s and one `Finished`, or call `whole`.

    Whoever holds one calls `aclose`, or runs it to its end. It frees the place in the engine by
    itself when it ends, fails, or the task that waits for it is cancelled.
    """

    def __init__(
        self,
        stream: TokenStream,
        tokenizer: Tokenizer,
        *,
        model_id: str,
        prompt_tokens: int,
        stop: Sequence[str],
    ) -> None:
        self.model_id = model_id
        self.prompt_tokens = prompt_tokens
        self._stream = stream
        self._detokenizer = Detokenizer(tokenizer)
        self._stop_strings = StopStrings(stop)
        self._completion_tokens = 0
        self._end: FinishReason | Error | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TextDelta | Finished:
        """Return what comes next; the last one is `Finished`.

        Raises:
            ServerError, ShuttingDown: the generation failed.
        """
        if self._closed:
            raise StopAsyncIteration
        try:
            text = ""
            while not text and self._end is None:
                text = self._take(await self._stream.next())
        except BaseException:  # a cancelled task too must give its place back
            await self.aclose()
            raise
        if text:
            return TextDelta(text)
        assert self._end is not None, "without text there is an end"
        await self.aclose()
        if isinstance(self._end, Error):
            raise self._end
        return Finished(self._end, self.usage)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(self.prompt_tokens, self._completion_tokens)

    async def whole(self) -> tuple[str, Finished]:
        """Wait for the end and return all of the text."""
        pieces: list[str] = []
        async for event in self:
            if isinstance(event, Finished):
                return "".join(pieces), event
            pieces.append(event.text)
        raise AssertionError("iteration ends with Finished")

    async def aclose(self) -> None:
        """Free the place in the engine; harmless when repeated or after the end."""
        if not self._closed:
            self._closed = True
            self._stream.abort()

    def _take(self, events: list[TokenEvent]) -> str:
        """Account for tokens; return their text that is certain."""
        pieces: list[str] = []
        for event in events:
            if event.finish_reason is FinishReason.ERROR:
                self._end = _failure(event.error)  # raised after the text before it
                break
            piece, self._end = self._take_one(event)
            pieces.append(piece)
            if self._end is not None:
                self._stream.abort()  # what follows a stop string is nobody's
                break
        return "".join(pieces)

    def _take_one(self, event: TokenEvent) -> tuple[str, FinishReason | None]:
        piece = ""
        if event.token_id is not None:
            self._completion_tokens += 1
            if event.finish_reason is not FinishReason.STOP:  # a stop id is not text
                piece = self._detokenizer.decode(event.token_id)
        if event.finish_reason is not None:
            piece += self._detokenizer.flush()
        piece, stopped = self._stop_strings.feed(piece)
        if stopped:
            return piece, FinishReason.STOP
        if event.finish_reason is not None:
            piece += self._stop_strings.flush()
        return piece, event.finish_reason


async def whole_batch(generations: Sequence[Generation]) -> list[tuple[str, Finished]]:
    """Wait for the end of all; when one fails the others are closed.

    Raises:
        ServerError, ShuttingDown: the first failure.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(generation.whole()) for generation in generations]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    finally:
        for generation in generations:  # a task cancelled before its first step closed nothing
            await generation.aclose()
    return [task.result() for task in tasks]


def _failure(error: Exception | None) -> Error:
    if isinstance(error, Error):
        return error
    failure = EngineFailure("the decoder failed while this request was in its step")
    failure.__cause__ = error
    return failure
