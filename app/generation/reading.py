"""Read the engine's tokens as text, tool calls and logprobs, until the text ends.

The layers a token goes through: the detokenizer holds back half characters, the stop strings what
may begin one of them, the tool call parser what may begin a call. A token's logprobs wait in the
ledger until its text is out. Synchronous; knows no thread and no client.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from tokenizers import Tokenizer

from app.contract.generation import Event, Finished, ReasoningDelta, TextDelta, ToolCallDelta
from app.contract.sampling import FinishReason
from app.contract.tokens import PromptLogprobs, PromptToken
from app.contract.usage import PromptProgress, Usage
from app.engine.sequence import PromptState, TokenEvent
from app.errors import EngineFailure, Error
from app.generation.detokenizer import Detokenizer
from app.generation.prepare import Prepared
from app.generation.stop_strings import StopStrings
from app.generation.thinking import ThinkingSplitter
from app.generation.token_ledger import TokenLedger
from app.generation.token_text import TokenTexts
from app.generation.tool_calls import Piece

FIGURES_AT_ONCE: Final = 2_000
"""Logprobs of a prompt that are spelled out in one go: some milliseconds."""


class TextReader:
    """Reads one sequence."""

    def __init__(self, tokenizer: Tokenizer, prepared: Prepared) -> None:
        self._prepared = prepared
        request = prepared.engine
        self._detokenizer = Detokenizer(tokenizer, prepared.shown)
        self._stop_strings = StopStrings(prepared.stop)
        self._calls = prepared.parser()
        thinking = prepared.thinking
        self._thinking = None if thinking is None else ThinkingSplitter(thinking)
        self._maybe_reasoning_tokens = 0
        """Tokens of thinking, or of what may be its beginning."""
        self._reasoning_tokens = 0
        wanted = request.top_logprobs is not None or request.prompt_logprobs is not None
        self._texts = TokenTexts(tokenizer) if wanted else None
        self._prompt: list[PromptToken] | None = None
        """The prompt's logprobs as far as they are spelled out."""
        self._ledger = TokenLedger()
        self._given = 0
        """Characters that the stop strings have let pass."""
        self._begun = False
        self._cached_tokens = 0
        self.token_ids: list[int] = []
        """Tokens that were read, those that are no text included."""
        self.end: FinishReason | Error | None = None
        """Why the text has ended; None while it goes on."""

    @property
    def thinks(self) -> bool:
        """Whether the model may think before its answer."""
        return self._thinking is not None

    @property
    def finished(self) -> Finished:
        """The last event of a text that did not fail."""
        assert isinstance(self.end, FinishReason), self.end
        return Finished(
            self.end,
            self.usage,
            call_cut=self._calls is not None and self._calls.cut,
            stop_string=self._stop_strings.found,
        )

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(
            len(self.prompt_ids), len(self.token_ids), self._cached_tokens, self._reasoning_tokens
        )

    @property
    def prompt_ids(self) -> Sequence[int]:
        """The prompt's tokens."""
        return self._prepared.engine.prompt_ids

    def spelling(self, events: Sequence[TokenEvent]) -> Iterator[None]:
        """Spell out the prompt's logprobs, if they are wanted, `FIGURES_AT_ONCE` at a time.

        Args:
            events: what the engine brought; `read` takes it afterwards.
        """
        wanted = self._prepared.engine.prompt_logprobs is not None
        if self._texts is None or not wanted or self._prompt is not None:
            return
        first = next((event for event in events if event.prompt is None), None)
        if first is None or first.finish_reason is FinishReason.ERROR:
            return
        self._prompt, figures = [], 0
        for token in self._texts.prompt(self._prepared.engine.prompt_ids, first.prompt_logprobs):
            self._prompt.append(token)
            figures += 1 + len(token.top)
            if figures >= FIGURES_AT_ONCE:
                figures = 0
                yield

    def read(self, events: list[TokenEvent]) -> list[Event]:
        """Take what the engine brought, up to the text's end; return what is certain after it."""
        ready: list[Event] = []
        text = thought = ""
        for event in events:
            if event.prompt is not None:
                ready.append(self._progress(event.prompt))
                continue
            if event.finish_reason is FinishReason.ERROR:
                self.end = _failure(event.error)  # raised after the text before it
                break
            if not self._begun:
                ready += self._begin(event)
            more_thought, more_text = self._text_of(event)
            thought += more_thought
            text += more_text
            if self.end is not None:  # what follows is not part of it
                break
        if thought:
            ready.append(ReasoningDelta(thought))
        return [*ready, *self._certain(text)]

    def _progress(self, state: PromptState) -> PromptProgress:
        self._cached_tokens = state.cached_tokens
        return PromptProgress(
            len(self.prompt_ids), state.cached_tokens, state.computed_tokens, state.time_s
        )

    def _begin(self, event: TokenEvent) -> Iterator[Event]:
        """Take what the first token's event alone says: what became of the prompt."""
        self._begun = True
        self._cached_tokens = event.cached_tokens
        deque(self.spelling([event]), maxlen=0)  # what nobody has spelled out so far
        if self._prompt is not None:
            yield PromptLogprobs(tuple(self._prompt))

    def _text_of(self, event: TokenEvent) -> tuple[str, str]:
        """Take an event; return thinking, and the text that is in front of every stop string."""
        if self._prepared.prompt_only:
            self.end = FinishReason.LENGTH
            return "", ""
        thought, answer = self._split(event, self._spelled(event))
        text, stopped = self._stop_strings.feed(answer)
        if stopped:
            self.end = FinishReason.STOP
            if self._prepared.include_stop:
                text += self._stop_strings.found or ""
        elif event.finish_reason is not None:
            self.end = event.finish_reason
            text += self._stop_strings.flush()
        return thought, text

    def _split(self, event: TokenEvent, text: str) -> tuple[str, str]:
        """Split text into thinking and answer, and count the tokens of thinking."""
        thinking = self._thinking
        if thinking is None:
            return "", text
        inside = thinking.inside
        thought, answer = thinking.feed(text)
        if event.finish_reason is not None:
            more_thought, more_answer = thinking.flush()
            thought, answer = thought + more_thought, answer + more_answer
        if inside and event.token_id is not None:
            self._maybe_reasoning_tokens += 1
        if thinking.begun:
            self._reasoning_tokens = self._maybe_reasoning_tokens
        return thought, answer

    def _spelled(self, event: TokenEvent) -> str:
        """Count an event's token; return the whole characters that it completes."""
        text = ""
        if event.token_id is not None:
            self.token_ids.append(event.token_id)
            # A grammar too ends with `stop`, and its last token is text.
            ends = event.finish_reason is FinishReason.STOP
            if not (ends and event.token_id in self._prepared.silent_ids):
                if event.logprobs is not None and self._texts is not None:
                    self._ledger.add(self._texts.logprob(event.logprobs))
                text = self._detokenizer.decode(event.token_id)
        at_end = event.finish_reason is not None
        if at_end:
            text += self._detokenizer.flush()
        self._ledger.spell(len(text), at_end=at_end)
        return text

    def _certain(self, text: str) -> Iterator[Event]:
        """Tell what can't be part of a tool call from what is, each with its tokens."""
        take = self._ledger.take if self.end is None else self._ledger.take_cut
        thought = 0 if self._thinking is None else self._thinking.consumed
        if thought:  # what is no answer has no logprobs
            self._ledger.take(thought)
        for end, found in self._found(text):
            tokens = take(thought + end)
            if isinstance(found, ToolCallDelta):
                yield found
            elif found is not None and (found or tokens):
                yield TextDelta(found, tokens)

    def _found(self, text: str) -> list[Piece]:
        self._given += len(text)
        if self._calls is None:
            return [(self._given, text)]
        found = self._calls.feed(text)
        if isinstance(self.end, FinishReason):
            found += self._calls.flush()
            found.append((self._given, ""))  # for tokens after the last call
        return found


def _failure(error: Exception | None) -> Error:
    if isinstance(error, Error):
        return error
    failure = EngineFailure("the decoder failed while this request was in its step")
    failure.__cause__ = error
    return failure
