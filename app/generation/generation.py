"""One text in the making: tokens come up from the engine, text, calls and the end go out.

Knows no HTTP and nothing of how the request came about.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Self

from tokenizers import Tokenizer

from app.contract.conversation import ToolCall
from app.contract.generation import (
    Event,
    Finished,
    PromptLogprobs,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
    Whole,
)
from app.contract.sampling import FinishReason
from app.engine.sequence import EngineRequest, TokenEvent
from app.engine.stream import TokenStream
from app.errors import EngineFailure, Error
from app.generation.detokenizer import Detokenizer
from app.generation.stop_strings import StopStrings
from app.generation.token_ledger import TokenLedger
from app.generation.token_text import TokenTexts
from app.generation.tool_calls import Piece, ToolCallParser


class Generation:
    """One text in the making: iterate for its events, or call `whole` or `collect`.

    Whoever holds one calls `aclose`, or runs it to its end. It frees the place in the engine by
    itself when it ends, fails, or the task that waits for it is cancelled.
    """

    def __init__(
        self,
        stream: TokenStream,
        tokenizer: Tokenizer,
        asked: EngineRequest,
        *,
        model_id: str,
        stop: Sequence[str] = (),
        silent_ids: frozenset[int] = frozenset(),
        shown: Sequence[str] = (),
        calls: ToolCallParser | None = None,
        prompt_only: bool = False,
    ) -> None:
        """Begin to listen.

        Args:
            stream: where the tokens come from.
            tokenizer: makes text of them.
            asked: what the engine was asked for.
            model_id: for whoever asks.
            stop: the text ends before the first of these.
            silent_ids: those that end a text without being part of it.
            shown: special tokens that are text all the same.
            calls: finds tool calls; None: all is text.
            prompt_only: the engine's one token is not wanted, only what it says of the prompt.
        """
        self.model_id = model_id
        self.prompt_tokens = len(asked.prompt_ids)
        self._asked = asked
        self._stream = stream
        self._detokenizer = Detokenizer(tokenizer, shown)
        self._stop_strings = StopStrings(stop)
        self._silent_ids = silent_ids
        self._calls = calls
        self._prompt_only = prompt_only
        wanted = asked.top_logprobs is not None or asked.prompt_logprobs is not None
        self._texts = TokenTexts(tokenizer) if wanted else None
        self._tokens = TokenLedger()
        self._given = 0
        """Characters that the stop strings have let pass."""
        self._ready: deque[Event] = deque()
        self._cached_tokens = 0
        self._completion_tokens = 0
        self._begun = False
        self._end: FinishReason | Error | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return what comes next; the last one is `Finished`.

        Raises:
            ServerError, ShuttingDown: the generation failed.
        """
        if self._closed:
            raise StopAsyncIteration
        try:
            while not self._ready and self._end is None:
                self._take(await self._stream.next())
        except BaseException:  # a cancelled task too must give its place back
            await self.aclose()
            raise
        if self._ready:
            return self._ready.popleft()
        assert self._end is not None, "without an event there is an end"
        await self.aclose()
        if isinstance(self._end, Error):
            raise self._end
        return Finished(self._end, self.usage)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(self.prompt_tokens, self._completion_tokens, self._cached_tokens)

    async def whole(self) -> tuple[str, Finished]:
        """Wait for the end and return all of the text."""
        whole = await self.collect()
        return whole.text, whole.finished

    async def collect(self) -> Whole:
        """Wait for the end and return everything in one record."""
        text: list[str] = []
        logprobs: list[TokenLogprob] = []
        prompt: PromptLogprobs | None = None
        calls: list[ToolCall] = []
        arguments: list[list[str]] = []
        async for event in self:
            match event:
                case TextDelta():
                    text.append(event.text)
                    logprobs += event.logprobs
                case PromptLogprobs():
                    prompt = event
                case ToolCallDelta():
                    if event.id is not None and event.name is not None:
                        calls.append(ToolCall(event.id, event.name, ""))
                        arguments.append([])
                    arguments[event.index].append(event.arguments)
                case Finished():
                    whole_calls = tuple(
                        ToolCall(call.id, call.name, "".join(pieces))
                        for call, pieces in zip(calls, arguments, strict=True)
                    )
                    return Whole("".join(text), tuple(logprobs), prompt, whole_calls, event)
        raise AssertionError("iteration ends with Finished")

    async def aclose(self) -> None:
        """Free the place in the engine; harmless when repeated or after the end."""
        if not self._closed:
            self._closed = True
            self._stream.abort()

    def _take(self, events: list[TokenEvent]) -> None:
        """Account for tokens and make ready what is certain after them."""
        said = ""
        for event in events:
            if event.finish_reason is FinishReason.ERROR:
                self._end = _failure(event.error)  # raised after the text before it
                break
            self._take_first(event)
            reason: FinishReason | None = FinishReason.LENGTH
            if not self._prompt_only:
                piece, reason = self._take_one(event)
                said += piece
            if reason is not None:
                self._end = reason
                self._stream.abort(reason)  # what follows a stop string is nobody's
                break
        self._given += len(said)
        if self._calls is None:
            pieces: list[Piece] = [(self._given, said)]
        else:
            pieces = self._calls.feed(said)
            if isinstance(self._end, FinishReason):
                pieces += self._calls.flush()
                pieces.append((self._given, ""))
        for end, found in pieces:
            tokens = self._tokens.take(end)
            if isinstance(found, ToolCallDelta):
                self._ready.append(found)
            elif found is not None and (found or tokens):
                self._ready.append(TextDelta(found, tokens))

    def _take_first(self, event: TokenEvent) -> None:
        """Take what the first event alone says, of the prompt."""
        if self._begun:
            return
        self._begun = True
        self._cached_tokens = event.cached_tokens
        if self._asked.prompt_logprobs is not None and self._texts is not None:
            tokens = self._texts.prompt(self._asked.prompt_ids, event.prompt_logprobs)
            self._ready.append(PromptLogprobs(tokens))

    def _take_one(self, event: TokenEvent) -> tuple[str, FinishReason | None]:
        piece = ""
        if event.token_id is not None:
            self._completion_tokens += 1
            # A grammar too ends with `stop`, and its last token is text.
            if event.finish_reason is not FinishReason.STOP or (
                event.token_id not in self._silent_ids
            ):
                if event.logprobs is not None and self._texts is not None:
                    self._tokens.add(self._texts.logprob(event.logprobs))
                piece = self._detokenizer.decode(event.token_id)
        if event.finish_reason is not None:
            piece += self._detokenizer.flush()
        self._tokens.spell(len(piece), at_end=event.finish_reason is not None)
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
