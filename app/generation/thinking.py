"""Tell what a model thinks from what it answers, and end its thinking when its tokens are used up.

A model that thinks does so first, between two markers of its own; its chat template may have
written the first of them already. Thinking is no part of the text: stop strings, tool calls and
grammars begin after it. Knows no requests and no HTTP.
"""

from typing import Any, Final

import msgspec
from tokenizers import Tokenizer

from app.catalog.chat_template import ChatTemplate
from app.contract.generation import Reasoning
from app.engine.sequence import Constraint
from app.runtime.decoder import CountArray


class ThinkingFormat(msgspec.Struct, frozen=True):
    """What stands around a model's thinking."""

    opening: str
    closing: str
    tokens: tuple[str, ...] = ()
    """Parts that are single tokens in some vocabularies; without them, the two markers."""

    @property
    def shown(self) -> tuple[str, ...]:
        """Special tokens that have to be seen in the text."""
        return self.tokens or (self.opening, self.closing)


FORMATS: Final = (
    ThinkingFormat("<think>", "</think>"),  # DeepSeek, Qwen, SmolLM3, GLM and most others
    ThinkingFormat("[THINK]", "[/THINK]"),  # Magistral
    ThinkingFormat("<seed:think>", "</seed:think>"),
    ThinkingFormat("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere
    ThinkingFormat(  # gpt-oss
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        ("<|channel|>", "<|message|>", "<|end|>", "<|start|>"),
    ),
)
EFFORTS: Final = {"minimal": 128, "low": 1024, "medium": 4096}
"""Tokens of thinking by the effort that is asked for; any other has no limit."""
_RECENT: Final = 24
"""Tokens in which a closing marker is looked for that is not one token."""


def thinking_format(template: ChatTemplate) -> ThinkingFormat | None:
    """Find the format that a template was written for; None: its model doesn't think."""
    # some templates cut former thinking off by its end, and name nothing else
    return next((form for form in FORMATS if form.closing in template.source), None) or next(
        (form for form in FORMATS if form.tokens and form.opening in template.source), None
    )


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """How one answer may think."""

    format: ThinkingFormat
    begun: bool
    """Whether the prompt ends inside it."""
    budget: int | None
    """Tokens, its markers not counted; None: any number."""


def planned(format_: ThinkingFormat, prompt: str, wanted: Reasoning) -> Thinking | None:
    """Say how an answer may think.

    Args:
        format_: the model's.
        prompt: as its chat template wrote it.
        wanted: what the client asks for.

    Returns:
        None: not at all, for the prompt ends after an empty thought.
    """
    end = prompt.rstrip()
    if end.endswith(format_.closing):
        return None
    budget = wanted.budget
    if budget is None and wanted.effort is not None:
        budget = 0 if wanted.effort == "none" else EFFORTS.get(wanted.effort)
    return Thinking(format=format_, begun=end.endswith(format_.opening), budget=budget)


def template_options(wanted: Reasoning) -> dict[str, Any]:
    """Say to a chat template what is asked for, by the names that templates know."""
    if wanted.effort is None:
        return {}
    thinks = wanted.effort != "none"
    effort = {"reasoning_effort": wanted.effort} if thinks else {}
    # Qwen, SmolLM and GLM have the one name, DeepSeek and Granite the other
    return {"enable_thinking": thinks, "thinking": thinks, **effort}


class ThinkingSplitter:
    """Splits one text into thinking and answer, however it comes in pieces."""

    def __init__(self, thinking: Thinking) -> None:
        self._format = thinking.format
        self._begun: bool | None = True if thinking.begun else None
        """None: it may still begin."""
        self._ever = thinking.begun
        self._held = ""
        self._blank = True
        """Whether nothing but white space has come since the last marker."""
        self.consumed = 0
        """Characters of the whole text that are no answer."""

    @property
    def inside(self) -> bool:
        """Whether the text is thinking now, or may be."""
        return self._begun is not False

    @property
    def begun(self) -> bool:
        """Whether there was any."""
        return self._ever or bool(self._begun)

    def feed(self, text: str) -> tuple[str, str]:
        """Take more text; return what is certain to be thinking, and what to be answer."""
        self._held += text
        if self._begun is None:
            self._look_for_beginning()
        thought = self._thought() if self._begun else ""
        return thought, self._answer() if self._begun is False else ""

    def flush(self) -> tuple[str, str]:
        """Return what was held back; the text has ended."""
        held, self._held = self._held, ""
        if self._begun:
            self.consumed += len(held)
            return held.rstrip(), ""
        return "", held

    def _look_for_beginning(self) -> None:
        rest = self._held.lstrip()
        opening = self._format.opening
        if rest.startswith(opening):
            self._begun = self._ever = True
            self._drop(len(self._held) - len(rest) + len(opening))
        elif not opening.startswith(rest):
            self._begun, self._blank = False, False

    def _thought(self) -> str:
        closing = self._format.closing
        if self._blank:
            self._drop(len(self._held) - len(self._held.lstrip()))
            self._blank = not self._held
        end = self._held.find(closing)
        if end >= 0:
            thought = self._held[:end].rstrip()
            self._drop(end + len(closing))
            self._begun, self._blank = False, True
            return thought
        sizes = range(min(len(self._held), len(closing) - 1), 0, -1)
        kept = next((size for size in sizes if self._held.endswith(closing[:size])), 0)
        # white space before the marker is not part of it
        certain = self._held[: len(self._held) - kept].rstrip()
        self._drop(len(certain))
        return certain

    def _answer(self) -> str:
        if self._blank:  # between the marker and the answer
            self._drop(len(self._held) - len(self._held.lstrip()))
            self._blank = not self._held
        held, self._held = self._held, ""
        return held

    def _drop(self, count: int) -> None:
        self._held = self._held[count:]
        self.consumed += count


class ThinkingConstraint:
    """Lets a model think, as long as it may, before another constraint holds.

    A `Constraint` of the engine.
    """

    def __init__(self, thinking: Thinking, tokenizer: Tokenizer, answer: Constraint | None) -> None:
        """Begin a text.

        Args:
            thinking: how it may think.
            tokenizer: the model's.
            answer: what holds after it; None: any token may come.
        """

        def ids_of(text: str) -> list[int]:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            return ids

        self._tokenizer = tokenizer
        self._thinking = thinking
        self._answer = answer
        self._opening = ids_of(thinking.format.opening)
        self._closing = ids_of(thinking.format.closing)
        self._left = thinking.budget
        self._forced: list[int] = []
        """Tokens that have to come next."""
        self._recent: list[int] = []
        self._inside = thinking.begun
        first = tokenizer.get_added_tokens_decoder().get(self._opening[0])
        self._own_token = first is not None
        """Whether the opening begins with a token that begins nothing else."""
        # Else an answer may begin as thinking does: it is held to its form from the start.
        self._waits = not thinking.begun and (answer is None or self._own_token)
        """Whether thinking may still begin."""
        self._force_if_spent()

    @property
    def ended(self) -> bool:
        """Whether nothing but the end can follow."""
        return not self._before_answer and self._answer is not None and self._answer.ended

    @property
    def _before_answer(self) -> bool:
        return bool(self._forced) or self._inside or self._waits

    def fill_mask(self, mask: CountArray) -> None:
        """Set the bits of the allowed tokens."""
        if self._forced:
            mask[:] = 0
            _set(mask, self._forced[0])
        elif self._inside or self._answer is None:
            mask[:] = -1
        else:
            self._answer.fill_mask(mask)
            if self._waits:
                _set(mask, self._opening[0])

    def accept(self, token_id: int) -> None:
        """Take the token that was sampled."""
        if self._forced:
            self._forced.pop(0)
            return
        if self._waits and self._answer is not None:
            self._waits = False
            if token_id == self._opening[0]:
                self._inside = True
                self._forced = self._opening[1:]
                return
        if self._waits:
            self._look_for_beginning(token_id)
        elif self._inside:
            self._think(token_id)
        elif self._answer is not None:
            self._answer.accept(token_id)

    def _look_for_beginning(self, token_id: int) -> None:
        self._recent.append(token_id)
        text = self._tokenizer.decode(self._recent, skip_special_tokens=False).lstrip()
        opening = self._thinking.format.opening
        if text.startswith(opening):
            self._waits, self._inside = False, True
            self._recent.clear()
            self._force_if_spent()
        elif not opening.startswith(text):
            self._waits = False

    def _think(self, token_id: int) -> None:
        if len(self._closing) == 1:
            over = token_id == self._closing[0]
        else:
            self._recent = [*self._recent[-_RECENT:], token_id]
            text = self._tokenizer.decode(self._recent, skip_special_tokens=False)
            over = self._thinking.format.closing in text
        if over:
            self._inside = False
            return
        if self._left is not None:
            self._left -= 1
            self._force_if_spent()

    def _force_if_spent(self) -> None:
        if self._inside and self._left is not None and self._left <= 0:
            self._inside = False
            self._forced = list(self._closing)


def _set(mask: CountArray, token_id: int) -> None:
    # int32 words: bit 31 is the sign
    bit = 1 << token_id % 32
    mask[token_id // 32] |= bit - (1 << 32) if bit >> 31 else bit
