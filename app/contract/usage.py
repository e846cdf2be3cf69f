"""What a generation costs: tokens and time, and how far it has come with its prompt."""

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """Tokens that a request cost."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Prompt tokens that came out of the prefix cache."""
    reasoning_tokens: int = 0
    """Completion tokens that the model thought with."""

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class PromptProgress(msgspec.Struct, frozen=True):
    """How far a prompt has come; an event before any other, where it was asked for."""

    total_tokens: int
    cached_tokens: int
    """Out of the prefix cache so far; more may come while another request reads the same text."""
    processed_tokens: int
    """The cached ones and those that were computed."""
    time_s: float
    """Since the first piece was fed; waiting for a slot comes before."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """How long a generation has taken so far, without the time in which it waited for a slot."""

    cached_tokens: int
    """Prompt tokens that came out of the prefix cache."""
    prompt_tokens: int
    """Prompt tokens that were computed."""
    prompt_s: float
    """From its slot to the first token."""
    generated_tokens: int
    generation_s: float
    """From the first token to the latest."""
