"""Answer with a body that is made while it is sent, so that it never lies in memory as a whole.

Unlike Litestar's own `Stream`, it has ended when its last piece is sent, and not only when the
client goes.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from litestar.response import Response
from litestar.response.base import ASGIResponse
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Receive, Scope, Send

from app.dialects.kit.streaming import ClientGone, while_connected


class Pieces(Response[Any]):
    """A body in pieces. When the client goes, no further one is made."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(content=b"", media_type=media_type)
        self._pieces = pieces

    def to_asgi_response(self, *_: Any, **from_layers: Any) -> ASGIResponse:
        """Make what is sent; Litestar calls this."""
        return _AsgiPieces(
            self._pieces,
            headers={**(from_layers.get("headers") or {}), **self.headers},
            cookies=[*self.cookies, *(from_layers.get("cookies") or [])],
            media_type=self.media_type,
            status_code=from_layers.get("status_code"),
        )


class _AsgiPieces(ASGIStreamingResponse):
    def __init__(self, pieces: AsyncGenerator[bytes, None], **fields: Any) -> None:
        super().__init__(iterator=pieces, **fields)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._pieces):
            await super().__call__(scope, receive, send)

    async def send_body(self, send: Send, receive: Receive) -> None:
        try:
            await while_connected(receive, self._send_pieces(send))
        except (ClientGone, OSError):  # a server may also raise OSError in `send`
            return

    async def _send_pieces(self, send: Send) -> None:
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
