"""The request that is under way in this task: its id for log lines, its tokens for the access log.

Knows no HTTP and no engine: whoever receives a request begins one, whoever generates counts.
"""

from contextvars import ContextVar
from typing import Final


class CurrentRequest:
    """One request, from its first byte to the end of its answer."""

    __slots__ = ("prompt_tokens", "request_id", "tokens")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.prompt_tokens = 0
        self.tokens = 0
        """Tokens generated, of all its generations together."""


_current: Final[ContextVar[CurrentRequest | None]] = ContextVar("current_request", default=None)


def begin_request(request_id: str) -> CurrentRequest:
    """From now on this is the request of this task, and of the tasks that it starts."""
    request = CurrentRequest(request_id)
    _current.set(request)
    return request


def current_request() -> CurrentRequest | None:
    """The request that this task works for; None: it works for none."""
    return _current.get()


def count_tokens(*, prompt_tokens: int = 0, tokens: int = 0) -> None:
    """Count tokens for the request of this task, if there is one."""
    request = _current.get()
    if request is not None:
        request.prompt_tokens += prompt_tokens
        request.tokens += tokens
