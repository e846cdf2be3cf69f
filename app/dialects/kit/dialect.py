"""A dialect's record: which paths are its own, its routes, and its words for what goes wrong."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from litestar import Litestar, Response, Router
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import HTTPResponseStartEvent, HTTPScope, Scope

from app.dialects.kit.body import Body
from app.dialects.kit.host import AnyRequest
from app.errors import Error

Refuse = Callable[[Error], Response[Any]]
"""Makes the answer to an error of the tree."""
Envelope = Callable[[int, str, dict[str, str]], Response[Any]]
"""Makes an answer from a status, a message and headers, where there is no error of the tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A dialect's side of `POST /generate`, which two documents define."""

    handler: Callable[[AnyRequest, Body], Awaitable[Response[Any]]]
    body: type[msgspec.Struct]
    responses: Mapping[int, ResponseSpec]
    """For the OpenAPI document; with 200, the answer that is not a stream."""
    streams: tuple[str, ...] = ()
    """Media types of its streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Requests to a path of another dialect that are this one's: its clients are known by headers.

    They are routed as if they had been sent to a path of its own.
    """

    method: str
    path: str
    own: str
    """What `path` becomes."""
    below: bool = False
    """Whether paths below it are meant too."""
    known: Callable[[Mapping[bytes, bytes]], bool]
    """Whether a request's headers, named in lower case, are those of this dialect's clients."""

    def taken(self, scope: HTTPScope) -> str | None:
        """Return the path that a request is routed to; None: it is none of these."""
        path: str = scope["path"]
        meant = path == self.path or (self.below and path.startswith(f"{self.path}/"))
        if not (meant and scope["method"] == self.method and self.known(dict(scope["headers"]))):
            return None
        return self.own + path.removeprefix(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One API that is spoken here."""

    paths: tuple[str, ...]
    """Prefixes, by whole segments: `/api` holds `/api` and `/api/chats`, not `/apiary`. `/` holds
    whatever no other dialect does."""
    router: Router | None = None
    """None: the dialect has nothing but claims."""
    refuse: Refuse
    envelope: Envelope
    headers: Callable[[Scope, HTTPResponseStartEvent], list[tuple[bytes, bytes]]] | None = None
    """What to add to the headers of each answer below `paths`, whoever made it."""
    claims: Mapping[str, Claim] = field(default_factory=dict)
    """By the key of a body of `POST /generate` that chooses this dialect."""
    visits: Sequence[Visit] = ()
    """What it answers at paths of others."""
    open: Callable[[Litestar], Awaitable[None]] | None = None
    """Begins what goes on beside requests, after the database was migrated."""
    close: Callable[[], Awaitable[None]] | None = None
    """Finishes what goes on beside requests, before the database closes."""


class Owners:
    """Which dialect a path belongs to."""

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self._by_prefix = {
            _segments(prefix): dialect for dialect in dialects for prefix in dialect.paths
        }
        assert len(self._by_prefix) == sum(len(d.paths) for d in dialects), "a path has two owners"
        assert () in self._by_prefix, "no dialect owns /"

    def of(self, path: str) -> Dialect:
        """Find the dialect whose prefix is the longest that a path begins with."""
        segments = _segments(path)
        lengths = range(len(segments), -1, -1)
        return next(
            self._by_prefix[segments[:length]]
            for length in lengths
            if segments[:length] in self._by_prefix
        )


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.strip("/").split("/")) if path.strip("/") else ()
