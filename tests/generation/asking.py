"""Requests, in few words."""

from typing import Any

from app.contract.conversation import ChatMessage
from app.contract.generation import GenerationRequest
from app.contract.sampling import SamplingParams


def asks(prompt: str | None = "Hi", **fields: Any) -> GenerationRequest:
    """A request, whatever of it is given."""
    defaults = {"max_tokens": 100, "sampling": SamplingParams(), "prompt": prompt}
    return GenerationRequest(**{**defaults, **fields})


def says(*contents: str) -> tuple[ChatMessage, ...]:
    """A conversation of the user alone."""
    return tuple(ChatMessage.of("user", content) for content in contents)
