"""What crosses between the dialects and generation: requests down, text up.

Knows no HTTP, no token ids.
"""

from collections.abc import Sequence

import msgspec

from app.catalog.chat_template import ChatMessage
from app.engine.sequence import FinishReason, SamplingParams

__all__ = [
    "ChatMessage",
    "FinishReason",
    "Finished",
    "GenerationRequest",
    "SamplingParams",
    "TextDelta",
    "Usage",
]


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One text to generate: from `messages` through the chat template, or from `prompt` raw.

    Both: the messages where the model has a chat template, else the prompt.
    """

    messages: Sequence[ChatMessage] = ()
    prompt: str | None = None
    """Tokenized as it is."""
    max_tokens: int
    sampling: SamplingParams
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""
    max_time_s: float | None = None


class Usage(msgspec.Struct, frozen=True):
    """Tokens that a request cost."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


class TextDelta(msgspec.Struct, frozen=True):
    """The next piece of the text; whole characters, never empty."""

    text: str


class Finished(msgspec.Struct, frozen=True):
    """The last event of a generation that did not fail. A failure is raised instead."""

    reason: FinishReason
    usage: Usage
