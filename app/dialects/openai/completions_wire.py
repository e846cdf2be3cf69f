"""`POST /v1/completions`: the answer, whole and as a stream, with logprobs in their older form."""

import time
from collections.abc import Sequence
from typing import Literal
from uuid import uuid4

import msgspec

from app.contract.generation import (
    Event,
    Finished,
    PromptLogprobs,
    PromptToken,
    TextDelta,
    TokenLogprob,
)
from app.contract.whole import Whole
from app.dialects.openai.chat_wire import finish_reason, finite
from app.dialects.openai.chunks import Chunks, UsageOf
from app.dialects.openai.schemas import FINGERPRINT, UsageAnswer
from app.errors import Error


class TextLogprobs(msgspec.Struct, frozen=True):
    """Logprobs of a choice's tokens, a list per figure."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    """Characters from the beginning of the choice's text."""

    @classmethod
    def of(cls, tokens: Sequence[TokenLogprob | PromptToken], offset: int = 0) -> "TextLogprobs":
        """Make them from the contract's records.

        Args:
            tokens: in their order.
            offset: of the first.
        """
        answer = cls([], [], [], [])
        for token in tokens:
            answer.tokens.append(token.text)
            # a character's later bytes stand where it began
            answer.text_offset.append(offset - (token.bytes != b"" and not _begins(token.bytes[0])))
            offset += num_characters(token)
            if token.logprob is None:
                answer.token_logprobs.append(None)
                answer.top_logprobs.append(None)
                continue
            answer.token_logprobs.append(finite(token.logprob))
            top: dict[str, float] = {}
            # Different tokens may have one text (parts of characters): the likeliest stands.
            for other in (*token.top, token):
                assert other.logprob is not None, "checked above"
                top.setdefault(other.text, finite(other.logprob))
            answer.top_logprobs.append(top)
        return answer


class TextChoice(msgspec.Struct, frozen=True):
    """One of the texts."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: str

    @classmethod
    def of(cls, index: int, whole: Whole, echo: str | None, *, logprobs: bool) -> "TextChoice":
        """Make one from a whole generation.

        Args:
            index: its place in the answer.
            whole: all of it.
            echo: what the text begins with; None: nothing.
            logprobs: whether they were asked for; a text without tokens then has empty lists.
        """
        before = () if whole.prompt_logprobs is None else whole.prompt_logprobs.tokens
        told = TextLogprobs.of([*before, *whole.logprobs]) if logprobs else None
        reason = finish_reason(whole.finished, calls=False)
        return cls(index, (echo or "") + whole.text, told, reason)


class CompletionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[TextChoice]
    usage: UsageAnswer

    @classmethod
    def of(
        cls,
        model_id: str,
        wholes: Sequence[Whole],
        n: int,
        echoes: Sequence[str | None],
        *,
        logprobs: bool,
    ) -> "CompletionAnswer":
        """Make one from whole generations.

        Args:
            model_id: who wrote.
            wholes: prompt by prompt.
            n: choices of a prompt.
            echoes: for each prompt, what its texts begin with; None: nothing.
            logprobs: whether they were asked for.
        """
        choices = [
            TextChoice.of(i, whole, echoes[i // n], logprobs=logprobs)
            for i, whole in enumerate(wholes)
        ]
        usages = {index: whole.finished.usage for index, whole in enumerate(wholes)}
        return cls(
            id=completion_id(),
            created=int(time.time()),
            model=model_id,
            choices=choices,
            usage=UsageAnswer.of(usages, n),
        )


class CompletionChunks:
    """Frames the stream: for each choice its pieces and its finish reason."""

    def __init__(
        self,
        model_id: str,
        n: int,
        echoes: Sequence[str | None],
        *,
        include_usage: bool,
        usage_so_far: UsageOf | None = None,
    ) -> None:
        kind = "text_completion"
        self._chunks = Chunks(
            completion_id(),
            kind,
            model_id,
            n,
            include_usage=include_usage,
            usage_so_far=usage_so_far,
        )
        self._n = n
        self._echoes = echoes
        self._offsets: dict[int, int] = {}
        """Choice → where in its text the next token begins; choices that have begun."""

    def take(self, index: int, event: Event) -> bytes:
        """Frame what happened to a choice."""
        begin = b""
        if index not in self._offsets:
            self._offsets[index] = 0
            tokens = event.tokens if isinstance(event, PromptLogprobs) else ()
            if (echo := self._echoes[index // self._n]) is not None:
                begin = self._frame(index, echo, tokens)
        match event:
            case TextDelta(text, logprobs):
                return begin + self._frame(index, text, logprobs)
            case Finished(_, usage):
                self._chunks.note(index, usage)
                reason = finish_reason(event, calls=False)
                return begin + self._frame(index, "", reason=reason)
        return begin

    def finish(self) -> bytes:
        """Frame the usage, if asked for, and the end."""
        return self._chunks.finish()

    def fail(self, error: Error) -> bytes:
        """Frame a failure, which is not the end."""
        return self._chunks.fail(error)

    def _frame(
        self,
        index: int,
        text: str,
        tokens: Sequence[TokenLogprob | PromptToken] = (),
        reason: str | None = None,
    ) -> bytes:
        logprobs = TextLogprobs.of(tokens, self._offsets[index]) if tokens else None
        self._offsets[index] += sum(map(num_characters, tokens))
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return self._chunks.write(choice)


def num_characters(token: TokenLogprob | PromptToken) -> int:
    """Characters that begin in a token; one that several tokens share counts in the first."""
    return sum(map(_begins, token.bytes))


def _begins(byte: int) -> bool:
    """Whether a byte of UTF-8 is the first of its character."""
    return byte & 0xC0 != 0x80


def completion_id() -> str:
    """Make an id for an answer."""
    return f"cmpl-{uuid4().hex}"
