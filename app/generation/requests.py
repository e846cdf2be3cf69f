"""What crosses between the dialects and generation: requests down, text up.

Knows no HTTP. Token ids appear only where a client speaks of tokens: logprobs, prompts and stops
given as ids.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from app.catalog.chat_template import ChatMessage, Tool, ToolCall
from app.engine.sequence import FinishReason, SamplingParams

__all__ = [
    "ChatMessage",
    "Event",
    "FinishReason",
    "Finished",
    "GenerationRequest",
    "JsonObject",
    "JsonSchema",
    "PromptLogprobs",
    "PromptToken",
    "SamplingParams",
    "TextDelta",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "Usage",
    "Whole",
]


class JsonSchema(msgspec.Struct, frozen=True, tag="json_schema"):
    """The answer is JSON that validates against the schema."""

    schema: dict[str, Any]


class JsonObject(msgspec.Struct, frozen=True, tag="json_object"):
    """The answer is a JSON object, any."""


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether the answer calls tools: as the model likes, never, or at least one."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None
    """This tool and no other; goes with `required`."""


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One text to generate: from `messages` by the chat template, from `prompt` or `prompt_ids`.

    `prompt_ids` go before all; of messages and prompt, the messages are taken where the model has
    a chat template, else the prompt.
    """

    messages: Sequence[ChatMessage] = ()
    prompt: str | None = None
    """Tokenized as it is."""
    prompt_ids: Sequence[int] | None = None
    """Tokens as they are; nothing is added."""
    max_tokens: int | None = None
    """None: as many as the context has room for. 0: no token, for the prompt's own figures."""
    sampling: SamplingParams
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""
    stop_token_ids: tuple[int, ...] = ()
    """End the text as the model's own end does; their text is not part of it."""
    min_tokens: int = 0
    """Nothing in the engine ends the text before so many tokens; stop strings still do."""
    ignore_eos: bool = False
    """The model's own end doesn't end the text; `stop_token_ids` still do."""
    top_logprobs: int | None = None
    """None: no logprobs. n: those of each token, and of the n likeliest in its place."""
    prompt_logprobs: int | None = None
    """The same for the prompt's tokens."""
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    """False: at most one call an answer."""
    response_format: JsonSchema | JsonObject | None = None
    max_time_s: float | None = None


class Usage(msgspec.Struct, frozen=True):
    """Tokens that a request cost."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt's, those that were not computed again."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token and how likely the model itself held it, before penalties and temperature."""

    token_id: int
    text: str
    """What the bytes spell; U+FFFD for those that are a part of a character."""
    bytes: bytes
    logprob: float
    """Natural logarithm."""
    top: tuple["TokenLogprob", ...] = ()
    """The likeliest in its place, likeliest first."""


class PromptToken(msgspec.Struct, frozen=True):
    """One token of the prompt."""

    token_id: int
    text: str
    bytes: bytes
    logprob: float | None
    """None for the first token, which nothing comes before."""
    top: tuple[TokenLogprob, ...] = ()


class PromptLogprobs(msgspec.Struct, frozen=True):
    """The first event when it was asked for: every token of the prompt."""

    tokens: tuple[PromptToken, ...]


class TextDelta(msgspec.Struct, frozen=True):
    """The next piece of the text, whole characters; empty only when it carries logprobs."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    """The tokens whose text this is; () unless asked for."""


class ToolCallDelta(msgspec.Struct, frozen=True):
    """The next piece of a tool call."""

    index: int
    """Which call of the answer, from 0."""
    id: str | None
    """On the first delta of a call; later None."""
    name: str | None
    """On the first delta of a call; later None."""
    arguments: str
    """Of one call, joined: a JSON object, unless the text was cut off."""


class Finished(msgspec.Struct, frozen=True):
    """The last event of a generation that did not fail. A failure is raised instead."""

    reason: FinishReason
    usage: Usage


Event = PromptLogprobs | TextDelta | ToolCallDelta | Finished


class Whole(msgspec.Struct, frozen=True):
    """All events of a generation in one."""

    text: str
    logprobs: tuple[TokenLogprob, ...]
    prompt_logprobs: PromptLogprobs | None
    tool_calls: tuple[ToolCall, ...]
    finished: Finished
