"""Receive a request's body within its time, and whole or not at all.

A body that never ends would hold its connection for ever; one that broke off must not be taken
for what its client meant.
"""

import asyncio
import time
from collections.abc import Iterable

from litestar.types import HTTPReceiveMessage, Receive

from app.errors import BodyTimeout, RequestError


class Receiving:
    """An ASGI `receive` that raises where a body is late or incomplete."""

    def __init__(
        self,
        receive: Receive,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        idle_s: float,
        total_s: float,
    ) -> None:
        """Begin with nothing received.

        Args:
            receive: the server's.
            headers: the request's.
            idle_s: how long the body may pause; 0: for ever.
            total_s: how long all its pauses together may take; 0: for ever.
        """
        self._receive = receive
        self._expected = _content_length(headers)
        self._idle_s = idle_s
        self._left_s = total_s or float("inf")
        self._total_s = total_s
        self._received = 0
        self._whole = False

    async def __call__(self) -> HTTPReceiveMessage:
        """Receive the next part of the body, and after it the disconnect.

        Raises:
            BodyTimeout: nothing came, or too little of it, in time.
            RequestError: the body ended before its end.
        """
        if self._whole:
            return await self._receive()  # type: ignore[return-value] # HTTP has no other messages
        patience_s = min(self._idle_s or float("inf"), self._left_s)
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(None if patience_s == float("inf") else patience_s):
                message: HTTPReceiveMessage = await self._receive()  # type: ignore[assignment]
        except TimeoutError as error:
            limit_s = self._idle_s if patience_s == self._idle_s else self._total_s
            raise BodyTimeout(self._received, limit_s) from error
        self._left_s -= time.monotonic() - began_s
        if message["type"] == "http.disconnect":
            raise RequestError(f"the body broke off after {self._received} bytes")
        self._received += len(message["body"])
        if not message["more_body"]:
            self._whole = True
            if self._expected is not None and self._received < self._expected:
                raise RequestError(
                    f"the body ended after {self._received} bytes, "
                    f"its Content-Length is {self._expected}"
                )
        return message


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return None
