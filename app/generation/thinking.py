"""Tell what a model thinks from what it answers, and say how long it may think.

A model that thinks does so first, between two markers of its own; its chat template may have
written the first of them already. Thinking is no part of the text: stop strings, tool calls and
grammars begin after it (`catalog.thinking_constraint`). Knows no tokens.
"""

from typing import Any, Final

import msgspec

from app.catalog.chat_template import ChatTemplate
from app.contract.generation import Reasoning


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
