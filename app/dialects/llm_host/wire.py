"""Streams and refusals as LLM Host's clients read them."""

from typing import Final

from app.dialects.kit.framing import TextFraming, json_event, json_line
from app.dialects.kit.refusals import ACCOUNT_STATUSES, Detail, documented, refuse_with_detail
from app.dialects.llm_host.schemas import Content, Failure
from app.errors import Error

refuse: Final = refuse_with_detail(ACCOUNT_STATUSES)
refusals: Final = documented(
    Detail,
    {
        400: "The body or a field of it is wrong",
        401: "No token, or none that holds",
        413: "The query is longer than the model's context",
        429: "Too many requests, or the queue is full: see Retry-After",
        500: "The model failed",
        503: "No model is loaded, or the server shuts down",
    },
)


class EventLines(TextFraming):
    """Stream as the document shows it: `data: {"content": …}`, and nothing at the end."""

    def encode(self, text: str) -> bytes:
        """Frame a piece."""
        return json_event(Content(text))

    def fail(self, error: Error) -> bytes:
        """Frame a failure."""
        return json_event(Failure(error.message))


class JsonLines(TextFraming):
    """Stream for the documented Python loop, which reads every line as JSON."""

    def encode(self, text: str) -> bytes:
        """Frame a piece."""
        return json_line(Content(text))

    def fail(self, error: Error) -> bytes:
        """Frame a failure."""
        return json_line(Failure(error.message))
