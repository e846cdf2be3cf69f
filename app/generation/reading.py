"""Read the engine's tokens as text, tool calls and logprobs, until the text ends.

The layers a token goes through: the detokenizer holds back half characters, the stop strings what
may begin one of them, the tool call parser what may begin a call. A token's logprobs wait in the
ledger until its text is out. Synchronous; knows no thread and no client.
"""

from collections.abc import Iterator

from tokenizers import Tokenizer

from app.contract.generation import (
    Event,
    Finished,
    PromptLogprobs,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from app.contract.sampling import FinishReason
from app.engine.sequence import TokenEvent
from app.errors import EngineFailure, Error
from app.generation.detokenizer import Detokenizer
from app.generation.prepare import Prepared
from app.generation.stop_strings import StopStrings
from app.generation.thinking import ThinkingSplitter
from app.generation.token_ledger import TokenLedger
from app.generation.token_text import TokenTexts
from app.generation.tool_calls import Piece


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
        self._ledger = TokenLedger()
        self._given = 0
        """Characters that the stop strings have let pass."""
        self._begun = False
        self._cached_tokens = 0
        self._completion_tokens = 0
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
        num_prompt = len(self._prepared.engine.prompt_ids)
        return Usage(
            num_prompt, self._completion_tokens, self._cached_tokens, self._reasoning_tokens
        )

    @property
    def num_tokens(self) -> int:
        """Tokens that were read so far."""
        return self._completion_tokens

    def read(self, events: list[TokenEvent]) -> list[Event]:
        """Take what the engine brought, up to the text's end; return what is certain after it."""
        ready: list[Event] = []
        text = thought = ""
        for event in events:
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

    def _begin(self, event: TokenEvent) -> Iterator[Event]:
        """Take what the first event alone says: what became of the prompt."""
        self._begun = True
        self._cached_tokens = event.cached_tokens
        request = self._prepared.engine
        if request.prompt_logprobs is not None and self._texts is not None:
            tokens = self._texts.prompt(request.prompt_ids, event.prompt_logprobs)
            yield PromptLogprobs(tokens)

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
            self._completion_tokens += 1
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
