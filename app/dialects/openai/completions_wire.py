"""`POST /v1/completions`: the answer, whole and as a stream, with logprobs in their older form."""

import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from uuid import uuid4

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.contract.generation import Event, Finished, TextDelta
from app.contract.tokens import PromptLogprobs, PromptToken, TokenLogprob
from app.contract.usage import PromptProgress
from app.contract.whole import Whole
from app.dialects.openai.chat_wire import finish_reason
from app.dialects.openai.chunks import Chunks
from app.dialects.openai.extras import (
    Extras,
    PromptFigures,
    SoFar,
    TimingsAnswer,
    fingerprint,
    finite,
    named,
    prompt_figures,
    timings_of,
)
from app.dialects.openai.schemas import UsageAnswer
from app.errors import Error


class TextLogprobs(msgspec.Struct, frozen=True):
    """Logprobs of a choice's tokens, a list per figure."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    """Characters from the beginning of the choice's text."""

    @classmethod
    def of(
        cls,
        tokens: Sequence[TokenLogprob | PromptToken],
        offset: int = 0,
        *,
        as_ids: bool = False,
    ) -> "TextLogprobs":
        """Make them from the contract's records.

        Args:
            tokens: in their order.
            offset: of the first.
            as_ids: whether tokens are named by their ids, and not by their text.
        """
        answer = cls([], [], [], [])
        for token in tokens:
            answer.tokens.append(named(token, as_id=as_ids))
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
                top.setdefault(named(other, as_id=as_ids), finite(other.logprob))
            answer.top_logprobs.append(top)
        return answer


class TextChoice(msgspec.Struct, frozen=True):
    """One of the texts."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: str
    token_ids: Annotated[
        list[int] | UnsetType, Meta(description="Every token of it, with return_token_ids.")
    ] = UNSET
    prompt_token_ids: Annotated[
        list[int] | UnsetType, Meta(description="With return_token_ids.")
    ] = UNSET
    prompt_logprobs: Annotated[
        PromptFigures | UnsetType, Meta(description="By token id; null for the first.")
    ] = UNSET


class CompletionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: UsageAnswer
    timings: Annotated[
        TimingsAnswer | UnsetType, Meta(description="The first choice's, with timings_per_token.")
    ] = UNSET

    @classmethod
    def of(
        cls,
        so_far: SoFar,
        wholes: Sequence[Whole],
        n: int,
        echoes: Sequence[str | None],
        extras: Extras,
        *,
        logprobs: int | None,
    ) -> "CompletionAnswer":
        """Make one from whole generations.

        Args:
            so_far: who wrote, and the tokens of the choices.
            wholes: prompt by prompt.
            n: choices of a prompt.
            echoes: for each prompt, what its texts begin with; None: nothing.
            extras: what else is told.
            logprobs: of how many of the likeliest; None: none at all.
        """

        def choice(index: int, whole: Whole) -> TextChoice:
            echo, prompt = echoes[index // n], wholes[index // n * n].prompt_logprobs
            wanted = extras.prompt_logprobs
            told = None
            if logprobs is not None:  # a text without tokens has empty lists
                before = () if echo is None or prompt is None else _cut(prompt.tokens, logprobs)
                as_ids = extras.tokens_as_ids
                told = TextLogprobs.of([*before, *whole.logprobs], as_ids=as_ids)
            return TextChoice(
                index,
                (echo or "") + whole.text,
                told,
                finish_reason(whole.finished, calls=False),
                list(so_far.token_ids(index)) if extras.token_ids else UNSET,
                list(so_far.prompt_ids(index)) if extras.token_ids else UNSET,
                UNSET if wanted is None or prompt is None else prompt_figures(prompt, wanted),
            )

        choices = [choice(index, whole) for index, whole in enumerate(wholes)]
        usages = {index: whole.finished.usage for index, whole in enumerate(wholes)}
        return cls(
            id=completion_id(),
            created=int(time.time()),
            model=so_far.model_id,
            system_fingerprint=fingerprint(so_far),
            timings=(timings_of(so_far, 0) if extras.timings else None) or UNSET,
            choices=choices,
            usage=UsageAnswer.of(usages, n),
        )


class CompletionChunks:
    """Frames the stream: for each choice its pieces and its finish reason."""

    def __init__(
        self,
        so_far: SoFar,
        n: int,
        echoes: Sequence[str | None],
        extras: Extras,
        *,
        echoes_logprobs: bool,
    ) -> None:
        """Begin a stream.

        Args:
            so_far: who writes, and what is known of the choices.
            n: choices of a prompt.
            echoes: for each prompt, what its texts begin with; None: nothing.
            extras: what else is told.
            echoes_logprobs: whether a prompt's logprobs are told with it; the first of its choices
                brings them, and the others wait.
        """
        self._so_far = so_far
        self._extras = extras
        self._chunks = Chunks(completion_id(), "text_completion", so_far, n, self._extras)
        self._n = n
        self._echoes = echoes
        self._offsets: dict[int, int] = {}
        """Choice → where in its text the next token begins; choices that have begun."""
        self._begun: set[int] = set()
        """Choices that have had a chunk."""
        self._echoes_logprobs = echoes_logprobs
        self._prompts: dict[int, Sequence[PromptToken]] = {}
        """The first choice of a prompt → the prompt's tokens."""
        self._held: dict[int, list[tuple[int, Event]]] = {}
        """The same → what waits for them."""

    def take(self, index: int, event: Event) -> bytes:
        """Frame what happened to a choice."""
        if isinstance(event, PromptProgress):
            return self._chunks.progress(_choice(index, ""), event)
        first = index - index % self._n
        if isinstance(event, PromptLogprobs):
            self._prompts[first] = event.tokens
            waiting = [(index, event), *self._held.pop(first, ())]
            return b"".join(self._taken(*one) for one in waiting)
        if self._echoes_logprobs and first not in self._prompts:
            self._held.setdefault(first, []).append((index, event))
            return b""
        return self._taken(index, event)

    def finish(self) -> bytes:
        """Frame the usage, if asked for, and the end."""
        return self._chunks.finish()

    def fail(self, error: Error) -> bytes:
        """Frame a failure, which is not the end."""
        return self._chunks.fail(error)

    def _taken(self, index: int, event: Event) -> bytes:
        begin = b"" if index in self._offsets else self._begin(index)
        match event:
            case TextDelta(text, logprobs):
                return begin + self._frame(index, text, logprobs)
            case Finished(_, usage):
                self._chunks.note(index, usage)
                reason = finish_reason(event, calls=False)
                return begin + self._frame(index, "", reason=reason)
        return begin

    def _begin(self, index: int) -> bytes:
        self._offsets[index] = 0
        echo = self._echoes[index // self._n]
        if echo is None:
            return b""
        prompt = self._prompts.get(index - index % self._n, ())
        return self._frame(index, echo, prompt, begins=True)

    def _frame(
        self,
        index: int,
        text: str,
        tokens: Sequence[TokenLogprob | PromptToken] = (),
        reason: str | None = None,
        *,
        begins: bool = False,
    ) -> bytes:
        offset, as_ids = self._offsets[index], self._extras.tokens_as_ids
        logprobs = TextLogprobs.of(tokens, offset, as_ids=as_ids) if tokens else None
        self._offsets[index] += sum(map(num_characters, tokens))
        choice = _choice(index, text, logprobs, reason)
        if self._extras.token_ids and index not in self._begun:
            self._begun.add(index)
            choice["prompt_token_ids"] = self._so_far.prompt_ids(index)
        return self._chunks.write(choice, begins=begins)


def _choice(
    index: int, text: str, logprobs: TextLogprobs | None = None, reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _cut(tokens: Sequence[PromptToken], most: int) -> list[PromptToken]:
    """Leave so many of the likeliest in each token's place: others may have asked for more."""
    return [msgspec.structs.replace(token, top=token.top[:most]) for token in tokens]


def num_characters(token: TokenLogprob | PromptToken) -> int:
    """Characters that begin in a token; one that several tokens share counts in the first."""
    return sum(map(_begins, token.bytes))


def _begins(byte: int) -> bool:
    """Whether a byte of UTF-8 is the first of its character."""
    return byte & 0xC0 != 0x80


def completion_id() -> str:
    """Make an id for an answer."""
    return f"cmpl-{uuid4().hex}"
