"""What is asked, in groups that are played in this order."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.corpus.asked import (
    closed,
    fallback,
    llm_host,
    locallab,
    management,
    neptun,
    openai_chat,
    openai_completions,
    openai_responses,
    openai_tokens,
    openai_tools,
)
from tests.corpus.request import Request


@dataclass(frozen=True)
class Group:
    """Requests whose records lie in one file."""

    name: str
    server: str
    requests: Sequence[Request]


GROUPS = (
    Group("management", "open", management.REQUESTS),
    Group("llm_host", "open", llm_host.REQUESTS),
    Group("neptun", "open", neptun.REQUESTS),
    Group("locallab", "open", locallab.REQUESTS),
    Group("openai_chat", "open", openai_chat.REQUESTS),
    Group("openai_tools", "open", openai_tools.REQUESTS),
    Group("openai_completions", "open", openai_completions.REQUESTS),
    Group("openai_responses", "open", openai_responses.REQUESTS),
    Group("openai_tokens", "open", openai_tokens.REQUESTS),
    Group("fallback", "open", fallback.REQUESTS),
    Group("closed", "closed", closed.REQUESTS),
)
