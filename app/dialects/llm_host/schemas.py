"""What LLM Host's clients send and get, besides what every dialect shares (`dialects.accounts`)."""

from typing import Annotated

import msgspec
from msgspec import Meta


class Query(msgspec.Struct, frozen=True):
    """Body of `POST /generate`."""

    query: Annotated[str, Meta(min_length=1, examples=["What is the capital of France?"])]


class Content(msgspec.Struct, frozen=True):
    """Answer of `POST /generate`, whole or one piece of a stream."""

    content: str


class Failure(msgspec.Struct, frozen=True):
    """What ends a stream that failed."""

    error: str
