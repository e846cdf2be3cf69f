"""Answer with a body that is made while it is sent, so that it never lies in memory as a whole.

Unlike Litestar's own `Stream`, it has ended when its last piece is sent, and not only when the
client goes; and it closes what it is made from whatever happens. Litestar's closes nothing when
it is cancelled inside `send`: a slot in the engine would go back only when it is collected.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from litestar.response import Response
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Receive, Scope, Send

from app.dialects.kit.connected import ClientGone, while_connected
from app.errors import Error

logger = logging.getLogger(__name__)


class Pieces(Response[Any]):
    """A body in pieces. When the client goes, no further one is made."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        media_type: str,
        *,
        first: bytes = b"",
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
        close: Callable[[], Awaitable[None]] | None = None,
        note_gone: Callable[[], None] | None = None,
    ) -> None:
        """Send nothing yet.

        Args:
            pieces: makes the body; closed in any case.
            media_type: of the body.
            first: a piece that is there already.
            length: bytes of the body, where that is known: then an `Error` of the pieces ends the
                answer early, and the client can tell. Otherwise it is raised, so that the
                connection is cut.
            headers: of the answer, beside its type.
            close: called in any case when no more is sent, before `pieces` is closed.
            note_gone: called if the client goes before the end.
        """
        known = {} if length is None else {"Content-Length": str(length)}
        super().__init__(content=b"", media_type=media_type, headers={**known, **(headers or {})})
        self._pieces = pieces
        self._sized = length is not None
        self._first = first
        self._close = close
        self._note_gone = note_gone

    def to_asgi_response(self, *_: Any, **from_layers: Any) -> ASGIResponse:
        """Make what is sent; Litestar calls this."""
        return _AsgiPieces(
            self._pieces,
            self._first,
            self._close,
            self._note_gone,
            sized=self._sized,
            headers={**(from_layers.get("headers") or {}), **self.headers},
            cookies=[*self.cookies, *(from_layers.get("cookies") or [])],
            media_type=self.media_type,
            status_code=from_layers.get("status_code"),
        )


class _AsgiPieces(ASGIStreamingResponse):
    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        first: bytes,
        close: Callable[[], Awaitable[None]] | None,
        note_gone: Callable[[], None] | None,
        *,
        sized: bool,
        **fields: Any,
    ) -> None:
        super().__init__(iterator=pieces, **fields)
        self._pieces = pieces
        self._first = first
        self._close = close
        self._note_gone = note_gone
        self._sized = sized

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._pieces.aclose)
            if self._close is not None:
                closing.push_async_callback(self._close)
            await super().__call__(scope, receive, send)

    async def send_body(self, send: Send, receive: Receive) -> None:
        try:
            await while_connected(receive, self._send_pieces(send))
        except (ClientGone, OSError):  # a server may also raise OSError in `send`
            if self._note_gone is not None:
                self._note_gone()
        except Error as error:
            if not self._sized:
                raise
            logger.warning("answer_broken_off code=%s message=%s", error.code, error)

    async def _send_pieces(self, send: Send) -> None:
        if self._first:
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
